// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const pushLong = `push publishes the files of a directory and prints the reference with the digest
of what it made.

With --recipient the model is encrypted, names included, and only the holders of
those identities can open it: key files, or keys in a key service by their URI. With --sign-key or --keyless a release statement is signed for
the name and the tag, and SLSA provenance beside it: that of --provenance, or one
that says that a local builder converted the bases and datasets given.

With --reuse what did not change since an earlier version, in this repository or
another of the registry, is not sent again.`

const pushExample = `  modelsec push ./llama registry.example.com/team/llama:v3 --sign-key signing.key --recipient identity.pub
  modelsec push ./llama registry.example.com/team/llama:v3 --sign-key signing.key \
      --base hf://org/llama@sha256:… --dataset https://example.com/set.parquet@sha256:…
  modelsec push ./llama registry.example.com/team/llama:v4 --sign-key signing.key --reuse registry.example.com/team/llama:v3`

type pushFlags struct {
	sign            signFlags
	recipients      recipientFlags
	provenance      string
	bases, datasets []string
	exclude         []string
	followSymlinks  bool
	name            string
	journal         string
	reuse           string
	identities      identityFlags
}

// pushResult is the JSON form of what push made.
type pushResult struct {
	Ref        string        `json:"ref"`
	Digest     digest.Digest `json:"digest"`
	Size       int64         `json:"size"`
	Encrypted  bool          `json:"encrypted"`
	Recipients int           `json:"recipients"`
	Signed     bool          `json:"signed"`
	Statements []string      `json:"statements"`
}

func (t *tool) pushCommand() *cobra.Command {
	var o pushFlags
	c := &cobra.Command{
		Use:     "push DIR REF",
		Short:   "Publish a directory as a model",
		Long:    pushLong,
		Example: pushExample,
		Args:    cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return t.push(c.Context(), args[0], args[1], o)
		},
	}
	f := c.Flags()
	o.sign.define(c, nil)
	f.StringVar(&o.provenance, "provenance", "", "`file` with a SLSA provenance v1 predicate, or an in-toto statement that has one")
	f.StringArrayVar(&o.bases, "base", nil, "base model that this one was made from, as `URI@DIGEST` (may be repeated)")
	f.StringArrayVar(&o.datasets, "dataset", nil, "dataset that this one was made with, as `URI@DIGEST` (may be repeated)")
	f.StringArrayVar(&o.exclude, "exclude", nil, "leave out files that match this `glob` (may be repeated)")
	f.BoolVar(&o.followSymlinks, "follow-symlinks", false, "push what symbolic links point to, also outside of DIR")
	f.StringVar(&o.name, "name", "", "`name` of the model in its release (default: the path of REF)")
	f.StringVar(&o.journal, "journal", "", "remember what was uploaded in this `file`, so that the same command goes on after it was\nkilled; of an encrypted model only with an --identity that opens it")
	f.StringVar(&o.reuse, "reuse", "", "an earlier plain version at this `REF` of the same registry: layers that did not change\nsince are hashed and not sent again")
	o.recipients.define(c, "encrypt, for the holder of this key")
	o.identities.define(c)
	c.MarkFlagsMutuallyExclusive("reuse", "recipient")
	c.MarkFlagsMutuallyExclusive("provenance", "base")
	c.MarkFlagsMutuallyExclusive("provenance", "dataset")
	return c
}

func (t *tool) push(ctx context.Context, dir, target string, o pushFlags) error {
	ref, err := t.reference(target)
	if err != nil {
		return err
	}
	if ref.Digest != "" {
		return usagef("%q has a digest, which is for push to find out", target)
	}
	if info, err := os.Stat(dir); err != nil {
		return usage(err)
	} else if !info.IsDir() {
		return usagef("%s is not a directory", dir)
	}
	options, err := o.options(ctx, t, ref)
	if err != nil {
		return err
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	if o.journal != "" {
		if client.Identities, err = o.identities.load(ctx, t); err != nil {
			return err
		}
	}
	d, err := client.Push(ctx, target, os.DirFS(dir), options)
	done()
	if err != nil {
		return err
	}
	out := pushResult{
		Ref: at(ref, d.Digest), Digest: d.Digest, Size: d.Size,
		Encrypted: len(options.Recipients) > 0, Recipients: len(options.Recipients),
		Signed: options.Signer != nil, Statements: []string{},
	}
	if out.Signed {
		for _, s := range options.Statements {
			out.Statements = append(out.Statements, s.PredicateType)
		}
		out.Statements = append(out.Statements, provenance.PredicateRelease)
	}
	return t.pinnedResult(out, out.Ref)
}

// options turns flags into what the library takes, before anything is sent.
func (o *pushFlags) options(ctx context.Context, t *tool, ref registry.Reference) (*modelsec.PushOptions, error) {
	signer, _, err := o.sign.load(ctx, t)
	if err != nil {
		return nil, err
	}
	out := &modelsec.PushOptions{Signer: signer, Name: o.name, Exclude: o.exclude, FollowSymlinks: o.followSymlinks, Journal: o.journal, Reuse: o.reuse, AllowClassical: o.recipients.allowClassical}
	if out.Recipients, err = o.recipients.load(ctx); err != nil {
		return nil, err
	}
	if err := encrypt.CheckClass(encrypt.PostQuantum, out.Recipients...); err != nil && out.AllowClassical == "" {
		return nil, usage(err).hinted("--allow-classical REASON, where what is published may be read when quantum computers can")
	}
	if signer == nil {
		if o.provenance != "" || len(o.bases)+len(o.datasets) > 0 {
			return nil, usagef("--provenance, --base and --dataset make a statement, and there is no --sign-key or --keyless to sign it")
		}
		t.say("warning: without --sign-key or --keyless nothing says who published this: modelsec verify and pull will refuse it, whatever their policy")
		return out, nil
	}
	if o.name == "" && host(ref) == "" {
		return nil, usagef("a layout on disk has no name that a release could bear").hinted("--name N, as in team/llama; readers give it to --name too")
	}
	statement, err := o.statement(t)
	if err != nil {
		return nil, err
	}
	out.Statements = []provenance.Statement{statement}
	return out, nil
}

func (o *pushFlags) statement(t *tool) (provenance.Statement, error) {
	if o.provenance != "" {
		return readProvenance(t, o.provenance)
	}
	var inputs []provenance.Dependency
	for _, list := range []struct {
		role string
		uris []string
	}{{provenance.RoleBase, o.bases}, {provenance.RoleDataset, o.datasets}} {
		for _, uri := range list.uris {
			d, err := dependency(list.role, uri)
			if err != nil {
				return provenance.Statement{}, err
			}
			inputs = append(inputs, d)
		}
	}
	t.say("no --provenance: signing SLSA provenance of build type convert by the local builder, with %s", plural(len(inputs), "input"))
	return provenance.NewProvenance(provenance.Build{Parameters: provenance.Convert{}, Builder: localBuilder, Dependencies: inputs})
}

// dependency parses URI@DIGEST.
func dependency(role, text string) (provenance.Dependency, error) {
	i := strings.LastIndexByte(text, '@')
	if i <= 0 {
		return provenance.Dependency{}, usagef("--%s %q: want URI@DIGEST, as in hf://org/model@sha256:…", role, text)
	}
	d, err := digest.Parse(text[i+1:])
	if err != nil || d.Algorithm() != digest.SHA256 {
		return provenance.Dependency{}, usagef("--%s %q: want sha256: and 64 hexadecimal digits after the @", role, text).
			hinted("sha256sum prints the digest of a file, modelsec inspect that of a model")
	}
	return provenance.Dependency{URI: text[:i], Digest: d, Role: role}, nil
}
