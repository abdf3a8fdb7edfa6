// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"path/filepath"
)

// contender is one way to move a model. A step that is nil is not measured.
type contender struct {
	name    string
	note    string // what it is, for the legend
	version string
	push    func(ref string, t *transfer) []command
	pull    func(ref string, t *transfer) []command
	prepare func(ref string, t *transfer) []command // what pull needs; nil: push
	home    bool                                    // keeps copies in its home directory, as much as the model
	digests bool                                    // pull names files by digest
	stored  string                                  // contenders with equal words store equal bytes
	profile bool                                    // takes -cpuprofile
}

// transfer is what a contender is told of a model.
type transfer struct {
	source string   // directory with the files
	files  []string // their names
	target string   // directory for them
	home   string   // for what a tool keeps; emptied after each run
}

// command is one process. Several in a row count as one.
type command struct {
	dir  string
	path string
	args []string
	env  []string
}

// oras is what ratios are taken of, whichever form of it there is.
const baseline = "oras"

// contenders lists who takes part: what is built here, and which tools are on
// PATH.
func contenders(ctx context.Context, bin string, k keys) []contender {
	ocicrypt := filepath.Join(bin, "ocicrypt")
	run := func(program, name string, extra ...string) func(string, *transfer) []command {
		return func(ref string, t *transfer) []command {
			dir := t.target
			if name == "modelsec-push" || name == "oras-push" {
				dir = t.source
			}
			args := append([]string{name, "-ref", ref, "-dir", dir}, extra...)
			return []command{{path: filepath.Join(bin, program), args: args}}
		}
	}
	task := func(name string, extra ...string) func(string, *transfer) []command {
		return run("worker", name, extra...)
	}
	plainPush := task("modelsec-push", "-signer", k.signer)
	encryptedPush := task("modelsec-push", "-signer", k.signer, "-recipient", k.recipient)
	ocicryptPush := func(ref string, t *transfer) []command {
		return []command{{path: ocicrypt, args: []string{"push", "-ref", ref, "-dir", t.source, "-key", k.jwePublic}}}
	}
	list := []contender{
		{
			name: "modelsec plain", note: "this library: signed, policy enforced, every byte verified", stored: "plain", profile: true,
			push: plainPush, pull: task("modelsec-pull", "-trust", k.trust),
		},
		{
			name: "modelsec encrypted", note: "this library: also encrypted, decrypted while pulling", stored: "encrypted", profile: true,
			push: encryptedPush, pull: task("modelsec-pull", "-trust", k.trust, "-identity", k.identity),
		},
		{
			name: "without lanes plain", note: "modelsec plain, built with the tag nolanes: SHA-256 of the standard library", stored: "plain",
			prepare: plainPush, pull: run(workerWithoutLanes, "modelsec-pull", "-trust", k.trust),
		},
		{
			name: "without lanes encrypted", note: "modelsec encrypted, built so", stored: "encrypted",
			prepare: encryptedPush, pull: run(workerWithoutLanes, "modelsec-pull", "-trust", k.trust, "-identity", k.identity),
		},
	}
	if c, ok := orasCLI(ctx, bin); ok {
		list = append(list, c)
	} else {
		list = append(list, contender{
			name: "oras-go", note: "oras.Copy of oras-go with its defaults, because there is no oras CLI on PATH", stored: "plain",
			version: moduleVersion(ctx, "oras.land/oras-go/v2"), push: task("oras-push"), pull: task("oras-pull"),
		})
	}
	list = append(list, otherTools(ctx, k, ocicryptPush)...)
	return append(list,
		contender{
			name: "ocicrypt", note: "AES_256_CTR_HMAC_SHA256 by the ocicrypt library, built with the same Go", stored: "ocicrypt",
			version: moduleVersion(ctx, "github.com/containers/ocicrypt"), prepare: ocicryptPush,
			pull: func(ref string, t *transfer) []command {
				return []command{{path: ocicrypt, args: []string{"pull", "-ref", ref, "-dir", t.target, "-key", k.jwePrivate}}}
			},
		},
		contender{
			name: "raw floor", note: "16 MiB ranges over 16 connections, nothing verified: no client can be faster this way", stored: "plain",
			prepare: plainPush, pull: task("floor-pull"),
		})
}
