// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const ociPrefix = "oci:"

// artifact is one model manifest and what is known about it so far. It is
// resolved once: every later step uses desc.
type artifact struct {
	*operation
	ref       registry.Reference
	store     registry.Store
	desc      ocispec.Descriptor
	manifest  *ocispec.Manifest
	raw       []byte
	indexed   bool
	referrers *listing

	policy    provenance.Policy
	rule      provenance.Rule
	grantRule provenance.GrantRule
	verifiers []provenance.Verifier
	report    *provenance.Report

	walk    *walk                // while it is judged, and after where somebody asked for it
	depth   int                  // steps from where the walk began
	bundles []*provenance.Bundle // what was judged, where the walk keeps it
}

// openStore parses the operation's reference and opens its repository.
func (c *Client) openStore(ctx context.Context, op *operation) (registry.Reference, registry.Store, error) {
	ref, err := registry.ParseReference(op.ref)
	if err != nil {
		return ref, nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if !strings.HasPrefix(ref.Name, ociPrefix) {
		op.host, _, _ = strings.Cut(ref.Name, "/")
	}
	store, err := c.current.Open(ctx, ref.Name)
	return ref, store, err
}

func (c *Client) openWrite(ctx context.Context, op *operation) (registry.Reference, registry.WriteStore, error) {
	ref, store, err := c.openStore(ctx, op)
	if err != nil {
		return ref, nil, err
	}
	w, ok := store.(registry.WriteStore)
	if !ok {
		return ref, nil, fmt.Errorf("%w: %s cannot be written", ErrConfig, ref.Name)
	}
	return ref, w, nil
}

// resolve finds the manifest that the reference names. It is the only place
// where a tag is read.
func (c *Client) resolve(ctx context.Context, op *operation) (*artifact, error) {
	ref, store, err := c.openStore(ctx, op)
	if err != nil {
		return nil, err
	}
	a := &artifact{operation: op, ref: ref, store: store}
	target := ref.Tag
	if ref.Digest != "" {
		target = string(ref.Digest)
	}
	if target == "" {
		return nil, fmt.Errorf("%w: %q names no version: add a :tag or an @sha256: digest", ErrConfig, op.ref)
	}
	if r, ok := store.(registry.ManifestResolver); ok {
		a.desc, a.raw, err = r.ResolveManifest(ctx, target)
	} else {
		a.desc, err = store.Resolve(ctx, target)
	}
	if err != nil {
		return nil, err
	}
	op.digest = a.desc.Digest
	switch {
	case ref.Digest != "" && a.desc.Digest != ref.Digest:
		return nil, fmt.Errorf("%w: want %s, got %s", ErrDigest, ref.Digest, a.desc.Digest)
	case a.desc.MediaType != ocispec.MediaTypeImageManifest:
		return nil, fmt.Errorf("%w: %s is of type %q, not a model manifest", ErrFormat, a.desc.Digest, clip(a.desc.MediaType))
	case a.raw == nil:
		if a.raw, err = readBlob(ctx, store, a.desc, maxManifestRead); err != nil {
			return nil, err
		}
	case digestOf(a.raw) != a.desc.Digest:
		return nil, fmt.Errorf("%w: want %s, got %s", ErrDigest, a.desc.Digest, digestOf(a.raw))
	}
	a.manifest, a.indexed, err = parseManifest(a.raw)
	return a, err
}

// pinned resolves a reference that must be by digest. K2.
func (c *Client) pinned(ctx context.Context, op *operation) (*artifact, registry.WriteStore, error) {
	ref, store, err := c.openWrite(ctx, op)
	if err != nil {
		return nil, nil, err
	}
	if ref.Digest == "" {
		return nil, nil, fmt.Errorf("%w: a tag may have moved to something else; resolve it, check it, and name @sha256:…", ErrUnpinned)
	}
	a, err := c.resolve(ctx, op)
	return a, store, err
}

// judge gathers the evidence and evaluates the policy. An error means that no
// decision was possible; a refusal is a report.
func (a *artifact) judge(ctx context.Context, p provenance.Policy) error {
	a.policy = p
	var err error
	if a.rule, err = p.Rule(a.ref.Name); err != nil {
		var refused *provenance.PolicyError
		if errors.As(err, &refused) {
			a.report = refused.Report
			return nil
		}
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if issuers := a.rule.Issuers(); len(issuers) > 0 && len(a.c.Verifiers) == 0 {
		return fmt.Errorf("%w: the policy names signers of %s, and the client has no Verifiers to verify their certificates", ErrConfig, issuers[0])
	}
	a.verifiers = a.c.verifiersOf(a.rule)
	if a.walk == nil {
		a.walk = newWalk(p, false)
		defer func() { a.walk = nil }()
	}
	evidence := provenance.Evidence{
		Reference: a.ref.Name, Manifest: a.desc.Digest, Now: a.c.now(),
		LayerDigestsCompared: a.rule.CompareLayerDigests,
		PlaintextCompared:    a.comparesPlaintext(),
	}
	if a.indexed {
		evidence.Profile = a.manifest.Annotations[profileAnnotation]
		evidence.IndexDigest = a.indexDescriptor().Digest
	}
	if a.ref.Digest == "" {
		evidence.Tag = a.ref.Tag
	}
	seen := make(map[digest.Digest]bool)
	err = a.attestations(ctx, func(f attestation) {
		d := digestOf(f.bundle.Bytes())
		if seen[d] {
			return
		}
		seen[d] = true
		if a.walk.keep {
			a.bundles = append(a.bundles, f.bundle)
		}
		a.verify(ctx, f, &evidence)
	})
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.report, err = a.evaluate(ctx, &evidence); err != nil || a.depth > 0 || a.walk.keep {
		return err
	}
	if a.report.Allowed {
		if a.grantRule, err = p.GrantRule(evidence); err != nil {
			return err
		}
	}
	return a.floor(ctx, evidence)
}

// verifiersOf are the verifiers for the signers of a rule. The caller's come
// first: they may prove a log entry or a time beside a key.
func (c *Client) verifiersOf(r provenance.Rule) []provenance.Verifier {
	return append(slices.Clone(c.Verifiers), provenance.KeyVerifier(r.Keys()...))
}

// verify adds to the evidence what a verifier proves about a bundle, or why
// none does.
func (a *artifact) verify(ctx context.Context, f attestation, evidence *provenance.Evidence) {
	got, err := a.prove(ctx, f.bundle)
	switch {
	case err == nil && got.Statement.PredicateType == provenance.PredicateDenials:
		evidence.Denials = append(evidence.Denials, *got)
		return
	case err == nil:
		evidence.Statements = append(evidence.Statements, *got)
		return
	}
	source := "given by the caller"
	if f.desc.Digest != "" {
		source = string(f.desc.Digest)
	}
	evidence.Rejected = append(evidence.Rejected, provenance.Rejection{Source: source, Reason: err.Error()})
}

// prove asks each verifier about a bundle.
func (a *artifact) prove(ctx context.Context, b *provenance.Bundle) (*provenance.Verified, error) {
	var errs []error
	for _, v := range a.verifiers {
		got, err := v.Verify(ctx, b)
		if err == nil {
			got.Attestation = digestOf(b.Bytes())
			return got, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// floor compares the sequence of the release with the highest that this
// machine has seen under its name. K27: a hint that can only refuse.
func (a *artifact) floor(ctx context.Context, e provenance.Evidence) error {
	if a.c.Floors == nil || !a.report.Allowed || a.rule.Name == "" {
		return nil
	}
	var sequence uint64
	found := false
	for i, v := range e.Statements {
		// The report lists the proven statements first, in the order given. Those
		// that did not count are the word of somebody who may not release.
		if i >= len(a.report.Statements) || len(a.report.Statements[i].Counted) == 0 {
			continue
		}
		r, err := provenance.ParseRelease(v.Statement)
		if err == nil && r.Name == a.rule.Name && (e.Tag == "" || slices.Contains(r.Tags, e.Tag)) {
			sequence, found = max(sequence, r.Sequence), true
		}
	}
	if !found {
		return nil
	}
	floor, err := a.c.Floors.Advance(ctx, a.rule.Name, sequence)
	if err != nil {
		return fmt.Errorf("rollback floor: %w", err)
	}
	c := provenance.Clause{Name: "floor", Held: sequence >= floor, Found: fmt.Sprintf("sequence %d, the highest seen here is %d", sequence, floor)}
	if !c.Held {
		c.Needs = "a release at least as new, or a reference by digest under a policy without this client's floor"
		a.report.Allowed = false
	}
	a.report.Clauses = append(a.report.Clauses, c)
	return nil
}

// enforce turns a refusal into an error and records the decision.
func (a *artifact) enforce(ctx context.Context) error {
	e := Event{Phase: phaseDecision, Allowed: a.report.Allowed, Report: a.report}
	var refused error
	if !a.report.Allowed {
		refused = &provenance.PolicyError{Report: a.report}
		e.Reason = refused.Error()
	}
	return join(refused, a.audit(ctx, e))
}

// indexDescriptor is the index layer of an artifact that has one.
func (a *artifact) indexDescriptor() ocispec.Descriptor {
	return a.manifest.Layers[len(a.manifest.Layers)-1]
}
