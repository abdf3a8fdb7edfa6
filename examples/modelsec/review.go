// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

const grantsLong = `grants lists who can open a model, or all models of a repository, as the registry
shows it: by key id, and until when. A key has another id in every model, so that
no two lists can be compared; --known gives the keys that you know their names.

A grant that the registry hides is not in the list, nor a key that somebody kept.
With --key or --policy it says which entries were granted by somebody whom the
policy lets grant.`

// grantEntry is the JSON form of one recipient.
type grantEntry struct {
	KeyID     string        `json:"keyId"`
	Recipient string        `json:"recipient,omitempty"`
	Type      string        `json:"type"`
	Scope     string        `json:"scope"`
	NotAfter  *time.Time    `json:"notAfter,omitempty"`
	Expired   bool          `json:"expired,omitempty"`
	Signed    bool          `json:"signed"`
	Vouched   bool          `json:"vouched,omitempty"`
	Document  digest.Digest `json:"document"`
}

// grantsResult is the JSON form of the recipients of a model.
type grantsResult struct {
	Ref      string       `json:"ref"`
	Verified bool         `json:"verified"`
	Grants   []grantEntry `json:"grants"`
}

// reviewedVersion is the JSON form of one version in a review.
type reviewedVersion struct {
	Digest    digest.Digest `json:"digest"`
	Tags      []string      `json:"tags,omitempty"`
	Encrypted bool          `json:"encrypted"`
	Grants    []grantEntry  `json:"grants"`
	Error     string        `json:"error,omitempty"`
}

// reviewResult is the JSON form of a review.
type reviewResult struct {
	Ref      string            `json:"ref"`
	Verified bool              `json:"verified"`
	Versions []reviewedVersion `json:"versions"`
}

// reviewFlags are the flags of grants.
type reviewFlags struct {
	trust   trust
	known   []string
	digests string
	csv     bool
}

func (t *tool) grantsCommand() *cobra.Command {
	var o reviewFlags
	c := &cobra.Command{
		Use:     "grants REF|REPOSITORY",
		Short:   "List who can open a model, or every model of a repository",
		Long:    grantsLong,
		Example: "  modelsec grants registry.example.com/team/llama --known acme=acme.pub --csv",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.grants(c.Context(), args[0], o)
		},
	}
	o.trust.define(c)
	f := c.Flags()
	f.StringArrayVar(&o.known, "known", nil, "`NAME=KEY`: what to call a key, a public key file or a URI (may be repeated)")
	f.StringVar(&o.digests, "digests-from", "", "list also the versions in a `file` with one sha256:… in a line")
	f.BoolVar(&o.csv, "csv", false, "print comma-separated values")
	return c
}

func (t *tool) grants(ctx context.Context, target string, o reviewFlags) error {
	ref, err := t.reference(target)
	if err != nil {
		return err
	}
	if o.csv && t.json {
		return usagef("--csv and --json exclude each other")
	}
	options := modelsec.ReviewOptions{Known: make(map[string]encrypt.Keyed)}
	for _, known := range o.known {
		name, key, ok := strings.Cut(known, "=")
		if !ok || name == "" || key == "" {
			return usagef("--known %q: want NAME=KEY", known)
		}
		if options.Known[name], err = loadOld(ctx, key); err != nil {
			return err
		}
	}
	if options.Digests, err = digestsFrom(o.digests); err != nil {
		return err
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	defer done()
	if o.trust.given() {
		var policy provenance.Policy
		if policy, err = o.trust.load(ref); err == nil {
			err = o.trust.apply(client, policy)
		}
		if err != nil {
			return err
		}
		options.Policy = &policy
	}
	found, err := client.Review(ctx, target, &options)
	done()
	if err != nil {
		return err
	}
	out := reviewResult{Ref: ref.String(), Versions: []reviewedVersion{}}
	for _, r := range found {
		out.Versions = append(out.Versions, newReviewed(r))
	}
	if (ref.Tag != "" || ref.Digest != "") && len(found) == 1 {
		switch r := found[0]; {
		case r.Err != nil:
			return r.Err
		case !r.Encrypted:
			return usagef("%s is not encrypted: whoever can read the repository can read it", ref)
		case t.json:
			return t.encode(grantsResult{Ref: out.Ref, Grants: out.Versions[0].Grants})
		}
	}
	if o.csv {
		return out.csv(t.stdout)
	}
	return t.result(out, out.table)
}

func newReviewed(r modelsec.Reviewed) reviewedVersion {
	v := reviewedVersion{Digest: r.Digest, Tags: r.Tags, Encrypted: r.Encrypted, Grants: []grantEntry{}}
	if r.Err != nil {
		v.Error = oneLine(r.Err.Error())
	}
	for _, g := range r.Grants {
		e := grantEntry{KeyID: visible(g.KeyID), Recipient: g.Recipient, Type: visible(g.Type), Scope: visible(g.Scope), Signed: g.Signed, Vouched: g.Vouched, Document: g.Document.Digest}
		if !g.NotAfter.IsZero() {
			e.NotAfter, e.Expired = &g.NotAfter, time.Now().After(g.NotAfter)
		}
		v.Grants = append(v.Grants, e)
	}
	return v
}

// rows calls add for every line of a review: a recipient, or the one that says
// why there is none.
func (r reviewResult) rows(add func(v reviewedVersion, who, until string, e grantEntry)) {
	for _, v := range r.Versions {
		switch {
		case v.Error != "":
			add(v, "unknown: "+v.Error, "", grantEntry{})
		case !v.Encrypted:
			add(v, "everybody: not encrypted", "", grantEntry{})
		case len(v.Grants) == 0:
			add(v, "nobody", "", grantEntry{})
		}
		for _, e := range v.Grants {
			until := "never"
			if e.NotAfter != nil {
				until = e.NotAfter.UTC().Format(time.RFC3339)
			}
			add(v, e.Recipient, until, e)
		}
	}
}

// table leaves the version out where it is the one of the line before.
func (r reviewResult) table(w io.Writer) {
	fmt.Fprintln(w, "UNVERIFIED: what the registry shows")
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "VERSION\tWHO\tKEY ID\tTYPE\tSCOPE\tNOT AFTER\tSIGNED")
	last := digest.Digest("")
	r.rows(func(v reviewedVersion, who, until string, e grantEntry) {
		version := string(v.Digest)
		if len(v.Tags) > 0 {
			version = strings.Join(v.Tags, " ")
		}
		if v.Digest == last {
			version = ""
		}
		last = v.Digest
		signed := ""
		switch {
		case e.Vouched:
			signed = "by a grant signer"
		case e.Signed:
			signed = "yes"
		case e.KeyID != "":
			signed = "no"
		}
		if e.Expired {
			until += " (expired)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", version, who, e.KeyID, e.Type, e.Scope, until, signed)
	})
	table.Flush()
}

func (r reviewResult) csv(w io.Writer) error {
	out := csv.NewWriter(w)
	out.Write([]string{"digest", "tags", "who", "keyId", "type", "scope", "notAfter", "expired", "signed", "vouched", "document"})
	r.rows(func(v reviewedVersion, who, until string, e grantEntry) {
		out.Write([]string{string(v.Digest), strings.Join(v.Tags, " "), cell(who), e.KeyID, e.Type, e.Scope, until,
			strconv.FormatBool(e.Expired), strconv.FormatBool(e.Signed), strconv.FormatBool(e.Vouched), string(e.Document)})
	})
	out.Flush()
	return out.Error()
}

// cell keeps a spreadsheet from taking text for a formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@", rune(s[0])) {
		return "'" + s
	}
	return s
}
