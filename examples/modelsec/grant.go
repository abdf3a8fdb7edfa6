// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const grantLong = `grant gives further recipients access to an encrypted model that you can open.
Nothing of the model changes: one small document is attached. Readers whose key is
in a key service use signed grants only.

With --file they open these files and no others, by pull --file.

With --replace, --with takes the place of another key: it gets the files that the
other could open, for as long, and the other is dropped. --all-tags does that in
all versions of a repository. The data keys stay what they are: whoever kept one
keeps it. With --report the same command goes on where it was interrupted.`

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
	files      []string
	replace    rotateFlags
}

func (t *tool) grantCommand() *cobra.Command {
	var o grantFlags
	c := &cobra.Command{
		Use:   "grant REF --identity F {--recipient F… | --replace F --with F…}",
		Short: "Give further recipients access to an encrypted model",
		Long:  grantLong,
		Example: "  modelsec grant registry.example.com/team/llama:v3 --key signing.pub --identity identity.key --recipient theirs.pub\n" +
			"  modelsec grant --all-tags registry.example.com/team/llama --replace old.pub --with new.pub --key signing.pub --identity old.key --sign-key signing.key",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.replace.old != "" {
				return t.rotate(c.Context(), args[0], o)
			}
			return t.grant(c.Context(), args[0], o)
		},
	}
	o.trust.define(c)
	o.recipients.define(c, "who shall open the model")
	o.identities.define(c)
	f := c.Flags()
	o.sign.define(c, &o.trust)
	f.StringVar(&o.notAfter, "not-after", "", "`time` (RFC 3339) after which readers stop using the grant")
	f.StringArrayVar(&o.files, "file", nil, "`path` of a file of the model: grant this and no other (may be repeated)")
	o.replace.define(c)
	c.MarkFlagsOneRequired("recipient", "replace")
	c.MarkFlagsMutuallyExclusive("recipient", "replace")
	c.MarkFlagsMutuallyExclusive("file", "replace")
	require(c, "identity")
	return c
}

// expiry is the zero time where none was given.
func (o *grantFlags) expiry() (time.Time, error) {
	if o.notAfter == "" {
		return time.Time{}, nil
	}
	at, err := time.Parse(time.RFC3339, o.notAfter)
	if err != nil {
		return at, usagef("--not-after %q: want a time as in 2027-01-31T00:00:00Z", o.notAfter)
	}
	return at, nil
}

// client is one that opens the model.
func (o *grantFlags) client(ctx context.Context, t *tool, ref registry.Reference, policy provenance.Policy) (*modelsec.Client, func(), error) {
	client, done, err := t.client(ref)
	if err != nil {
		return nil, nil, err
	}
	if err = o.trust.apply(client, policy); err == nil {
		client.Identities, err = o.identities.load(ctx, t)
	}
	if err != nil {
		done()
		return nil, nil, err
	}
	return client, done, nil
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
	options := modelsec.GrantOptions{AllowClassical: o.recipients.allowClassical, Files: o.files}
	if options.Signer, _, err = o.sign.load(ctx, t); err != nil {
		return err
	}
	if options.NotAfter, err = o.expiry(); err != nil {
		return err
	}
	client, done, err := o.client(ctx, t, ref, policy)
	if err != nil {
		return err
	}
	defer done()
	d, err := client.Grant(ctx, target, policy, recipients, &options)
	if err != nil {
		return err
	}
	out := grantResult{Ref: ref.String(), Recipients: len(recipients), Document: d.Digest}
	t.say("granted to %s", plural(len(recipients), "recipient"))
	return t.pinnedResult(out, d.Digest.String())
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
	if err := client.Revoke(ctx, target, &options, keyIDs...); err != nil {
		return err
	}
	t.say("revoked for %s; who has fetched the model or kept its key still has it", plural(len(keyIDs), "key id"))
	return t.pinnedResult(revokeResult{Ref: ref.String(), Revoked: keyIDs}, ref.String())
}
