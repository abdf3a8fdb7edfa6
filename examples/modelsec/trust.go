// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
	"github.com/modelsec/modelsec-go/registry"
)

// policyVariable names the policy where neither --policy nor --key is given.
const policyVariable = "MODELSEC_POLICY"

const (
	maxPolicyFile = 1 << 20 // as POLICY.md §1 has it
	maxBundleFile = 4 << 20 // as FORMAT.md §9 has it
)

// trust is the flags by which a reader says whom to trust.
type trust struct {
	keys     []string
	identity string
	issuer   string
	roots    []string
	policy   string
	name     string
	bundles  []string
	tags     bool
}

func (x *trust) define(c *cobra.Command) {
	f := c.Flags()
	f.StringArrayVar(&x.keys, "key", nil, "public key `file`: the model must be signed by one of these, and released under the name\nand tag asked for (may be repeated)")
	f.StringVar(&x.identity, "certificate-identity", "", "email address or URI: the model must be signed by this identity, or by one of the --key\n(workflows of a CI system need --policy, which names their source)")
	f.StringVar(&x.issuer, "certificate-oidc-issuer", "", "`URL` of the issuer that vouches for --certificate-identity")
	f.StringArrayVar(&x.roots, "trusted-root", nil, "`file` that says whose certificates, logs and timestamps to believe; identities need one\n(may be repeated; modelsec trusted-root writes that of the public instance)")
	f.StringVar(&x.policy, "policy", "", "policy `file` (default: $"+policyVariable+", unless --key or an identity is given)")
	f.StringVar(&x.name, "name", "", "with --key or an identity, the `name` of the model in its release, where that is not the path of the\nreference; with --policy, the repository host/path that the reference stands for")
	f.StringArrayVar(&x.bundles, "bundle", nil, "attestation `file` (Sigstore bundle) to judge beside those at the registry\n(may be repeated)")
	f.BoolVar(&x.tags, "cosign-tags", false, "also judge what cosign 2 attached under the tag sha256-HEX.att, as it did by default")
	c.MarkFlagsMutuallyExclusive("key", "policy")
	c.MarkFlagsMutuallyExclusive("certificate-identity", "policy")
	c.MarkFlagsRequiredTogether("certificate-identity", "certificate-oidc-issuer")
}

// named says whether signers were named on the command line.
func (x *trust) named() bool { return len(x.keys) > 0 || x.identity != "" }

// file is the policy file to use, or empty.
func (x *trust) file() string {
	if x.policy == "" && !x.named() {
		return os.Getenv(policyVariable)
	}
	return x.policy
}

func (x *trust) given() bool { return x.named() || x.file() != "" }

// load returns the policy for a reference. Without a flag there is none, and
// nothing is ever accepted for the lack of one.
func (x *trust) load(ref registry.Reference) (provenance.Policy, error) {
	switch {
	case x.named():
		return x.fromSigners(ref)
	case x.file() != "":
		return x.fromFile(ref)
	}
	return provenance.Policy{}, usagef("whom to trust? give --key F, the public key of the publisher, --certificate-identity S, or --policy F").
		hinted("$%s names a policy for every command; to look without trusting: modelsec inspect %s", policyVariable, ref)
}

// fromSigners is the policy of POLICY.md §6 for several keys and an identity.
func (x *trust) fromSigners(ref registry.Reference) (provenance.Policy, error) {
	if strings.HasPrefix(ref.Name, layoutPrefix) && ref.Digest == "" && x.name == "" {
		return provenance.Policy{}, usagef("%s has a tag, and a layout on disk has no name that a release could bear", ref).
			hinted("--name gives the name that the model was released under; a reference by digest needs none")
	}
	var signers []provenance.Principal
	var seen []string
	for _, path := range x.keys {
		text, pub, err := loadPublicKey(path)
		if err != nil {
			return provenance.Policy{}, err
		}
		id, err := provenance.KeyID(pub)
		if err != nil {
			return provenance.Policy{}, usagef("%s: %w", path, err)
		}
		// A policy that names one key twice contradicts itself; a command line
		// that does so only repeats itself.
		if !slices.Contains(seen, id) {
			seen = append(seen, id)
			signers = append(signers, provenance.Principal{Name: path, Key: string(text)})
		}
	}
	if x.identity != "" {
		signers = append(signers, provenance.Principal{Name: "--certificate-identity", Issuer: x.issuer, Subject: x.identity})
	}
	p := provenance.Policy{Rules: []provenance.Rule{{
		Repositories: []string{"*"},
		Name:         x.name,
		Require:      []provenance.Requirement{{Signers: signers}},
	}}}
	if err := p.Validate(); err != nil {
		f := usage(err)
		if x.identity != "" {
			f.hinted("a policy file names the source of a workflow: docs/POLICY.md §1, docs/TRUST.md")
		}
		return provenance.Policy{}, f
	}
	return p, nil
}

func (x *trust) fromFile(ref registry.Reference) (provenance.Policy, error) {
	path := x.file()
	text, err := readFile(path, maxPolicyFile)
	if err != nil {
		return provenance.Policy{}, err
	}
	p, err := provenance.ParsePolicy(text)
	if err != nil {
		return provenance.Policy{}, usagef("%s: %w", path, err).hinted("docs/POLICY.md has the form; a policy with an error is never used in part")
	}
	if x.name == "" {
		return p, nil
	}
	// Rules are found by repository, and what a disk or a mirror stands for is
	// the caller's word, never theirs.
	repository, err := registry.ParseReference(x.name)
	if err != nil || repository.String() != repository.Name || host(repository) == "" {
		return provenance.Policy{}, usagef("--name %q: with --policy it is the repository that %s stands for, as host/path", x.name, ref.Name)
	}
	return p.For(x.name), nil
}

// apply hands a client what a policy is judged with: bundles, and who proves
// identities.
func (x *trust) apply(client *modelsec.Client, policy provenance.Policy) (err error) {
	client.CosignTags = x.tags
	if client.Bundles, err = x.evidence(); err != nil {
		return err
	}
	o := sigstore.VerifierOptions{Keys: policy.Keys()}
	if len(x.roots) == 0 {
		if len(policy.Issuers()) > 0 {
			return usagef("identities are proven under a trusted root: give --trusted-root F").
				hinted("modelsec trusted-root --out DIR writes that of the public Sigstore instance")
		}
		return nil
	}
	for _, path := range x.roots {
		root, err := readFile(path, maxRootFile)
		if err != nil {
			return err
		}
		o.TrustedRoots = append(o.TrustedRoots, root)
	}
	v, err := sigstore.NewVerifier(o)
	if err != nil {
		return usage(err)
	}
	client.Verifiers = []provenance.Verifier{v}
	return nil
}

// judge returns a client that believes whom the flags name, and the policy that
// they make for a reference. done is that of client.
func (t *tool) judge(ref registry.Reference, x trust) (c *modelsec.Client, policy provenance.Policy, done func(), err error) {
	if policy, err = x.load(ref); err != nil {
		return nil, policy, nil, err
	}
	if c, done, err = t.client(ref); err != nil {
		return nil, policy, nil, err
	}
	if err = x.apply(c, policy); err != nil {
		done()
		return nil, policy, nil, err
	}
	return c, policy, done, nil
}

// evidence reads the bundles.
func (x *trust) evidence() ([]*provenance.Bundle, error) {
	var out []*provenance.Bundle
	for _, path := range x.bundles {
		text, err := readFile(path, maxBundleFile)
		if err != nil {
			return nil, err
		}
		b, err := provenance.ParseBundle(text)
		if err != nil {
			return nil, usagef("%s: %w", path, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// requireSigner is the policy of somebody who trusts what he signed himself.
func requireSigner(pub crypto.PublicKey, name string) provenance.Policy {
	p := provenance.RequireKey(pub)
	p.Rules[0].Name = name
	return p
}
