// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
)

// SummaryOptions say who signs a verification summary. Signer and Verifier are
// required.
type SummaryOptions struct {
	// Signer signs the summary. It should sign nothing else: policies refuse a
	// verifier who is also a publisher.
	Signer provenance.Signer
	// Verifier is the id under which policies know the verifier, a URI.
	Verifier string
	// PolicyURI says where the policy can be found. May be empty.
	PolicyURI string
}

// Summarise judges the artifact as Verify does and, where the policy admits it,
// signs a SLSA verification summary and attaches it, so that others check one
// statement instead of all. Opening a model never signs one. Where the policy
// compares layer digests the whole content is read; a policy that compares
// plaintext is an ErrConfig. A refusal is a *provenance.PolicyError, and nothing
// is signed.
func (c *Client) Summarise(ctx context.Context, ref string, p provenance.Policy, o SummaryOptions) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("summarise", ref)
	d, err := func() (ocispec.Descriptor, error) {
		if o.Signer == nil || o.Verifier == "" {
			return ocispec.Descriptor{}, fmt.Errorf("%w: a summary needs a Signer and the id of its Verifier", ErrConfig)
		}
		_, store, err := c.openWrite(ctx, op)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		a, err := c.resolve(ctx, op)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := a.judge(ctx, p); err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := a.enforce(ctx); err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := a.checkForOthers(ctx); err != nil {
			return ocispec.Descriptor{}, err
		}
		st, err := provenance.NewSummary(a.report, o.Verifier, o.PolicyURI)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		b, err := sign(ctx, o.Signer, st, a.desc.Digest)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		return a.attach(ctx, store, b)
	}()
	return d, op.fail(err)
}

// checkForOthers reads what the rule wants compared: who takes a summary in
// place of the evidence takes it for done.
func (a *artifact) checkForOthers(ctx context.Context) error {
	switch {
	case a.comparesPlaintext():
		return fmt.Errorf("%w: the policy compares content with its plaintext root, which only opening the model does; summarise under a policy that does not", ErrConfig)
	case a.rule.CompareLayerDigests:
		return a.checkContent(ctx)
	}
	return a.checkIndex(ctx)
}
