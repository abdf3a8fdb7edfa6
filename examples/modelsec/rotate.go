// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// maxDigestsFile is room for 100,000 digests.
const maxDigestsFile = 8 << 20

// rotateFlags are the flags of grant that replace a key.
type rotateFlags struct {
	old     string
	with    []string
	allTags bool
	digests string
	report  string
}

func (r *rotateFlags) define(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&r.old, "replace", "", "the `key` to replace, a public key file or a URI: a key id would not do, as every model\nhas another for the same key")
	f.StringArrayVar(&r.with, "with", nil, "the `key` that takes its place (may be repeated)")
	f.BoolVar(&r.allTags, "all-tags", false, "with --replace: in every version of the repository REF that a tag names")
	f.StringVar(&r.digests, "digests-from", "", "with --all-tags: and in those of a `file` with one sha256:… in a line")
	f.StringVar(&r.report, "report", "", "with --replace: `file` that notes what is done, so that the same command goes on there")
	c.MarkFlagsRequiredTogether("replace", "with")
}

// digestsFrom reads a list of versions: digests or references that end in one.
func digestsFrom(path string) ([]digest.Digest, error) {
	if path == "" {
		return nil, nil
	}
	text, err := readFile(path, maxDigestsFile)
	if err != nil {
		return nil, err
	}
	var out []digest.Digest
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		d := digest.Digest(line[strings.LastIndexByte(line, '@')+1:])
		if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
			return nil, usagef("%s: line %d is no sha256 digest: %q", path, i+1, visible(line))
		}
		out = append(out, d)
	}
	return out, nil
}

// repository parses a reference without version.
func (t *tool) repository(text string) (registry.Reference, error) {
	ref, err := t.reference(text)
	if err == nil && (ref.Tag != "" || ref.Digest != "") {
		err = usagef("%q names one version: give the repository, %s", text, ref.Name)
	}
	return ref, err
}

// rotatedVersion is the JSON form of one version after a rotation.
type rotatedVersion struct {
	Digest   digest.Digest    `json:"digest"`
	Tags     []string         `json:"tags,omitempty"`
	Outcome  modelsec.Outcome `json:"outcome"`
	Document digest.Digest    `json:"document,omitempty"`
	Error    string           `json:"error,omitempty"`
}

// rotateResult is the JSON form of what a rotation did.
type rotateResult struct {
	Ref      string           `json:"ref"`
	Failed   int              `json:"failed"`
	Versions []rotatedVersion `json:"versions"`
}

func (t *tool) rotate(ctx context.Context, target string, o grantFlags) error {
	parse := t.version
	if o.replace.allTags {
		parse = t.repository
	}
	ref, err := parse(target)
	if err != nil {
		return err
	}
	policy, err := o.trust.load(ref)
	if err != nil {
		return err
	}
	options := modelsec.RotateOptions{AllowClassical: o.recipients.allowClassical, Journal: o.replace.report}
	if options.Old, err = loadOld(ctx, o.replace.old); err != nil {
		return err
	}
	recipients := recipientFlags{keys: o.replace.with}
	if options.New, err = recipients.load(ctx); err != nil {
		return err
	}
	if options.Signer, _, err = o.sign.load(ctx, t); err != nil {
		return err
	}
	if options.NotAfter, err = o.expiry(); err != nil {
		return err
	}
	if options.Digests, err = digestsFrom(o.replace.digests); err != nil {
		return err
	}
	client, done, err := o.client(ctx, t, ref, policy)
	if err != nil {
		return err
	}
	defer done()
	options.Each = func(r modelsec.Rotated) {
		t.say("%s %s: %s", r.Digest, strings.Join(r.Tags, " "), r.Outcome)
	}
	found, err := client.Rotate(ctx, target, policy, &options)
	done()
	if err != nil && !errors.Is(err, modelsec.ErrNotRotated) {
		return err
	}
	// The report comes with a failure too, and tells of it in JSON.
	if printed := t.rotated(ref, found); err == nil || printed != nil {
		return errors.Join(err, printed)
	}
	return &failure{err: err, status: t.status(ctx, err), hint: t.hint(t.status(ctx, err), err), told: t.json}
}

// loadOld reads the key that is replaced.
func loadOld(ctx context.Context, name string) (encrypt.Keyed, error) {
	r, err := loadRecipient(ctx, name)
	if err != nil {
		return nil, err
	}
	k, ok := r.(encrypt.Keyed)
	if !ok {
		return nil, usagef("%s: entries for a key of this kind cannot be told apart", name)
	}
	return k, nil
}

func (t *tool) rotated(ref registry.Reference, found []modelsec.Rotated) error {
	out := rotateResult{Ref: ref.String(), Versions: []rotatedVersion{}}
	for _, r := range found {
		v := rotatedVersion{Digest: r.Digest, Tags: r.Tags, Outcome: r.Outcome, Document: r.Document}
		if r.Err != nil {
			v.Error = oneLine(r.Err.Error())
			out.Failed++
		}
		out.Versions = append(out.Versions, v)
	}
	return t.result(out, func(w io.Writer) {
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "DIGEST\tTAGS\tOUTCOME\tGRANT")
		for _, v := range out.Versions {
			last := string(v.Document)
			if v.Error != "" {
				last = v.Error
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", v.Digest, strings.Join(v.Tags, " "), v.Outcome, last)
		}
		table.Flush()
	})
}
