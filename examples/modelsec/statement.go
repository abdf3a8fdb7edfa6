// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/provenance"
)

// localBuilder is who runs push on a machine of his own: it promises nothing,
// and a policy that lists builders must say whether it will do.
const localBuilder = "https://modelsec.github.io/builders/local/v1"

const maxPredicate = 4 << 20

// document is what push --provenance takes: a predicate, or a statement whose
// predicate is one.
type document struct {
	Type          string          `json:"_type"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
	Envelope      json.RawMessage `json:"dsseEnvelope"`
	Payload       string          `json:"payload"`
}

// readProvenance reads SLSA provenance, which is held to the schema before
// anything is pushed.
func readProvenance(t *tool, path string) (provenance.Statement, error) {
	text, err := readFile(path, maxPredicate)
	if err != nil {
		return provenance.Statement{}, err
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		return provenance.Statement{}, usagef("%s: %w", path, err)
	}
	s := provenance.Statement{PredicateType: provenance.PredicateSLSA, Predicate: text}
	switch {
	case doc.Envelope != nil || doc.Payload != "":
		return s, usagef("%s is signed already, and would be signed anew about another subject", path).
			hinted("give the predicate inside of it; readers take signed bundles with --bundle")
	case doc.Type != "" || doc.PredicateType != "":
		if doc.PredicateType != provenance.PredicateSLSA {
			return s, usagef("%s: predicate type %q, want %s", path, doc.PredicateType, provenance.PredicateSLSA).hinted("modelsec attest signs statements of other types")
		}
		s.Predicate = doc.Predicate
		t.say("%s: its predicate is signed with the pushed manifest as the subject, whatever the subject was", path)
	}
	if _, err := provenance.ParseProvenance(s); err != nil {
		return s, usagef("%s: %w", path, err)
	}
	return s, nil
}

const attestLong = `attest signs a statement about a model and attaches it. The reference must have a
digest: what a tag names may have changed since you looked.

--type is the URI of the predicate type. Policies know the types of docs/POLICY.md
§2; statements of any other type are carried along and satisfy nothing.`

type attestFlags struct {
	sign                     signFlags
	predicateType, predicate string
}

// attestResult is the JSON form of what attest made.
type attestResult struct {
	Ref           string        `json:"ref"`
	PredicateType string        `json:"predicateType"`
	Referrer      digest.Digest `json:"referrer"`
}

func (t *tool) attestCommand() *cobra.Command {
	var o attestFlags
	c := &cobra.Command{
		Use:     "attest REF@DIGEST --sign-key F --type URI --predicate F",
		Short:   "Sign a statement about a model and attach it",
		Long:    attestLong,
		Example: "  modelsec attest registry.example.com/team/llama@sha256:… --sign-key signing.key --type https://slsa.dev/provenance/v1 --predicate slsa.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.attest(c.Context(), args[0], o)
		},
	}
	f := c.Flags()
	o.sign.define(c, nil)
	f.StringVar(&o.predicateType, "type", "", "`URI` of the predicate type")
	f.StringVar(&o.predicate, "predicate", "", "`file` with the predicate, a JSON object")
	require(c, "type", "predicate")
	c.MarkFlagsOneRequired("sign-key", "keyless")
	return c
}

// require makes flags required. Only a misspelt name can fail.
func require(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err)
		}
	}
}

func (t *tool) attest(ctx context.Context, target string, o attestFlags) error {
	ref, err := t.pinned(target)
	if err != nil {
		return err
	}
	signer, _, err := o.sign.load(ctx, t)
	if err != nil {
		return err
	}
	if signer == nil || o.predicateType == "" {
		return usagef("--sign-key and --type must not be empty")
	}
	predicate, err := readFile(o.predicate, maxPredicate)
	if err != nil {
		return err
	}
	s := provenance.Statement{PredicateType: o.predicateType, Predicate: predicate}
	// The form is checked here, so that what fails is the file and not the
	// registry.
	if _, err := s.Encode(ref.Digest); err != nil {
		return usagef("%s: %w", o.predicate, err)
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	d, err := client.Attest(ctx, target, signer, s)
	done()
	if err != nil {
		return err
	}
	out := attestResult{Ref: ref.String(), PredicateType: o.predicateType, Referrer: d.Digest}
	t.say("attached as %s", d.Digest)
	return t.pinnedResult(out, out.Ref)
}
