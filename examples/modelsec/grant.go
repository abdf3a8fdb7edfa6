// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

const grantLong = `grant gives further recipients access to an encrypted model that you can open.
Nothing of the model changes: one small document is attached. Readers whose key is
in a key service use signed grants only.`

// missing says what to give where a model is encrypted and no identity was.
func (i *identityFlags) missing(err error) error {
	if isAny(err, modelsec.ErrNoKey, encrypt.ErrNoKey) && len(i.keys) == 0 {
		return &failure{err: err, status: statusNoKey, hint: "the model is encrypted: --identity F, the private key that it was encrypted for"}
	}
	return err
}

// grantResult is the JSON form of what grant wrote.
type grantResult struct {
	Ref        string        `json:"ref"`
	Recipients int           `json:"recipients"`
	Document   digest.Digest `json:"document"`
}

type grantFlags struct {
	trust      trust
	identities identityFlags
	recipients recipientFlags
	sign       signFlags
	notAfter   string
}

func (t *tool) grantCommand() *cobra.Command {
	var o grantFlags
	c := &cobra.Command{
		Use:     "grant REF --identity F --recipient F…",
		Short:   "Give further recipients access to an encrypted model",
		Long:    grantLong,
		Example: "  modelsec grant registry.example.com/team/llama:v3 --key signing.pub --identity identity.key --recipient theirs.pub",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.grant(c.Context(), args[0], o)
		},
	}
	o.trust.define(c)
	o.recipients.define(c, "who shall open the model")
	o.identities.define(c)
	f := c.Flags()
	o.sign.define(c, &o.trust)
	f.StringVar(&o.notAfter, "not-after", "", "`time` (RFC 3339) after which readers stop using the grant")
	require(c, "recipient", "identity")
	return c
}

func (t *tool) grant(ctx context.Context, target string, o grantFlags) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	policy, err := o.trust.load(ref)
	if err != nil {
		return err
	}
	recipients, err := o.recipients.load(ctx)
	if err != nil {
		return err
	}
	options := modelsec.GrantOptions{AllowClassical: o.recipients.allowClassical}
	if options.Signer, _, err = o.sign.load(ctx, t); err != nil {
		return err
	}
	if o.notAfter != "" {
		if options.NotAfter, err = time.Parse(time.RFC3339, o.notAfter); err != nil {
			return usagef("--not-after %q: want a time as in 2027-01-31T00:00:00Z", o.notAfter)
		}
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	defer done()
	if err = o.trust.apply(client, policy); err != nil {
		return err
	}
	if client.Identities, err = o.identities.load(ctx, t); err != nil {
		return err
	}
	d, err := client.Grant(ctx, target, policy, recipients, &options)
	if err != nil {
		return err
	}
	out := grantResult{Ref: ref.String(), Recipients: len(recipients), Document: d.Digest}
	t.say("granted to %s", plural(len(recipients), "recipient"))
	return t.pinnedResult(out, d.Digest.String())
}

// grantEntry is the JSON form of one recipient.
type grantEntry struct {
	KeyID    string        `json:"keyId"`
	Type     string        `json:"type"`
	Scope    string        `json:"scope"`
	NotAfter *time.Time    `json:"notAfter,omitempty"`
	Signed   bool          `json:"signed"`
	Document digest.Digest `json:"document"`
}

// grantsResult is the JSON form of the recipients of a model.
type grantsResult struct {
	Ref      string       `json:"ref"`
	Verified bool         `json:"verified"`
	Grants   []grantEntry `json:"grants"`
}

func (t *tool) grantsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "grants REF",
		Short: "List who could open a model, unverified",
		Long:  "grants lists the recipients of an encrypted model, as the registry shows them:\nkey ids that differ from model to model, so that no two lists can be compared.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.grants(c.Context(), args[0])
		},
	}
}

func (t *tool) grants(ctx context.Context, target string) error {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	found, err := client.Grants(ctx, target)
	done()
	if err != nil {
		return err
	}
	out := grantsResult{Ref: ref.String(), Grants: []grantEntry{}}
	for _, g := range found {
		e := grantEntry{KeyID: visible(g.KeyID), Type: visible(g.Type), Scope: visible(g.Scope), Signed: g.Signed, Document: g.Document.Digest}
		if !g.NotAfter.IsZero() {
			e.NotAfter = &g.NotAfter
		}
		out.Grants = append(out.Grants, e)
	}
	return t.result(out, func(w io.Writer) {
		fmt.Fprintln(w, "UNVERIFIED: what the registry shows")
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fmt.Fprintln(table, "KEY ID\tTYPE\tSCOPE\tNOT AFTER\tSIGNED")
		for _, e := range out.Grants {
			notAfter, signed := "never", "no"
			if e.NotAfter != nil {
				notAfter = e.NotAfter.UTC().Format(time.RFC3339)
			}
			if e.Signed {
				signed = "yes"
			}
			fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", e.KeyID, e.Type, e.Scope, notAfter, signed)
		}
		table.Flush()
	})
}

const revokeLong = `revoke drops recipients from the grants of a model; modelsec grants lists their key
ids. Nothing takes back what a recipient has fetched, or the key if he kept it: for
that, push the model again, which makes a new key.

Where the grant is signed, as push --sign-key does, what takes its place must be
signed too: --sign-key, and --key or --policy where somebody else signed it.`

// revokeResult is the JSON form of what revoke did.
type revokeResult struct {
	Ref     string   `json:"ref"`
	Revoked []string `json:"revoked"`
}

func (t *tool) revokeCommand() *cobra.Command {
	var x trust
	var sign signFlags
	c := &cobra.Command{
		Use:     "revoke REF@DIGEST KEYID…",
		Short:   "Drop recipients from the grants of a model",
		Long:    revokeLong,
		Example: "  modelsec revoke registry.example.com/team/llama@sha256:… 5f0c… --sign-key signing.key",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return t.revoke(c.Context(), args[0], args[1:], x, sign)
		},
	}
	x.define(c)
	sign.define(c, &x)
	return c
}

func (t *tool) revoke(ctx context.Context, target string, keyIDs []string, x trust, sign signFlags) error {
	ref, err := t.pinned(target)
	if err != nil {
		return err
	}
	signer, pub, err := sign.load(ctx, t)
	if err != nil {
		return err
	}
	var options modelsec.RevokeOptions
	var policy provenance.Policy
	if signer != nil {
		if pub != nil {
			// Whoever signed the grant himself need not say that he trusts it.
			policy = requireSigner(pub, x.name)
		}
		if x.given() || pub == nil {
			if policy, err = x.load(ref); err != nil {
				return err
			}
		}
		options.Signer, options.Policy = signer, &policy
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	defer done()
	if err = x.apply(client, policy); err != nil {
		return err
	}
	err = client.Revoke(ctx, target, &options, keyIDs...)
	if errors.Is(err, modelsec.ErrGrantSigned) {
		return usage(err).hinted("the grant is signed: --sign-key signs what takes its place")
	}
	if err != nil {
		return err
	}
	t.say("revoked for %s; who has fetched the model or kept its key still has it", plural(len(keyIDs), "key id"))
	return t.pinnedResult(revokeResult{Ref: ref.String(), Revoked: keyIDs}, ref.String())
}
