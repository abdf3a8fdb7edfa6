// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// orasCLI is the stock client, from PATH or built by -install.
func orasCLI(ctx context.Context, bin string) (contender, bool) {
	path, err := exec.LookPath("oras")
	if err != nil {
		path = filepath.Join(bin, "oras")
		if _, err := os.Stat(path); err != nil {
			return contender{}, false
		}
	}
	return contender{
		name: "oras", note: "the oras CLI with its defaults: plain, each blob hashed as it streams", stored: "plain",
		version: versionOf(ctx, path, "version"),
		push: func(ref string, t *transfer) []command {
			args := append([]string{"push", "--no-tty", "--plain-http", ref}, t.files...)
			return []command{{path: path, dir: t.source, args: args}}
		},
		pull: func(ref string, t *transfer) []command {
			return []command{{path: path, args: []string{"pull", "--no-tty", "--plain-http", "-o", t.target, ref}}}
		},
	}, true
}

// otherTools are those that are on PATH.
func otherTools(ctx context.Context, k keys, ocicryptPush func(string, *transfer) []command) []contender {
	var list []contender
	if path, err := exec.LookPath("modctl"); err == nil {
		list = append(list, modctl(path, versionOf(ctx, path, "version")))
	}
	if path, err := exec.LookPath("kit"); err == nil {
		list = append(list, kit(path, versionOf(ctx, path, "version")))
	}
	if path, err := exec.LookPath("skopeo"); err == nil {
		list = append(list, contender{
			name: "skopeo (ocicrypt)", note: "skopeo as the system has it, the artifact of the ocicrypt contender", stored: "ocicrypt",
			version: versionOf(ctx, path, "--version"), prepare: ocicryptPush, digests: true,
			pull: func(ref string, t *transfer) []command {
				return []command{{path: path, args: []string{"--insecure-policy", "copy", "--quiet", "--src-tls-verify=false",
					"--decryption-key", k.jwePrivate, "docker://" + ref, "dir:" + t.target}}}
			},
		})
	}
	return list
}

// modctl reads and writes the registry directly, without its local store.
func modctl(path, version string) contender {
	global := func(t *transfer) []string {
		return []string{"--no-progress", "--storage-dir", t.home, "--log-dir", t.home}
	}
	return contender{
		name: "modctl", note: "the ModelPack CLI, straight to and from the registry", stored: "plain", version: version,
		push: func(ref string, t *transfer) []command {
			modelfile := filepath.Join(t.home, "Modelfile")
			if err := os.WriteFile(modelfile, []byte("NAME bench\nMODEL *.safetensors\n"), 0o644); err != nil {
				return nil
			}
			args := append([]string{"build", "-t", ref, "-f", modelfile, "--output-remote", "--plain-http"}, global(t)...)
			return []command{{path: path, args: append(args, t.source)}}
		},
		pull: func(ref string, t *transfer) []command {
			args := append([]string{"pull", ref, "--plain-http", "--extract-from-remote", "--extract-dir", t.target}, global(t)...)
			return []command{{path: path, args: args}}
		},
	}
}

// kit has to pack into its local store before it can push.
func kit(path, version string) contender {
	return contender{
		name: "kit", note: "the KitOps CLI: pack and push, unpack from the registry", stored: "kit", home: true, version: version,
		push: func(ref string, t *transfer) []command {
			var b strings.Builder
			fmt.Fprintf(&b, "manifestVersion: 1.0.0\npackage:\n  name: bench\nmodel:\n  path: %s\n", t.files[0])
			for i, name := range t.files[1:] {
				if i == 0 {
					b.WriteString("  parts:\n")
				}
				fmt.Fprintf(&b, "    - path: %s\n", name)
			}
			kitfile := filepath.Join(t.home, "Kitfile")
			if err := os.WriteFile(kitfile, []byte(b.String()), 0o644); err != nil {
				return nil
			}
			env := []string{"KITOPS_HOME=" + t.home}
			return []command{
				{path: path, env: env, args: []string{"pack", "--progress", "none", "-f", kitfile, "-t", ref, t.source}},
				{path: path, env: env, args: []string{"push", "--progress", "none", "--plain-http", ref}},
			}
		},
		pull: func(ref string, t *transfer) []command {
			return []command{{path: path, env: []string{"KITOPS_HOME=" + t.home},
				args: []string{"unpack", "--progress", "none", "--plain-http", "-d", t.target, ref}}}
		},
	}
}
