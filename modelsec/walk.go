// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// maxWalkBytes is what all inputs of an artifact together may cost to look at,
// attestations and all: for each of the most artifacts that a policy may follow
// a quarter of a MiB.
const maxWalkBytes = 256 << 20

// walk is one artifact and what it was made from, judged under one policy. Every
// input is looked at once, in repositories that the policy lists, within its
// bounds (K42).
type walk struct {
	policy provenance.Policy
	all    bool         // also what no requirement needs
	keep   bool         // the attestations of every artifact
	left   int          // artifacts that may still be looked at
	bytes  atomic.Int64 // that may still be read
	steps  map[place]*step
	lists  *denialLists // nil: not fetched yet

	recorded *recorded // where it goes by evidence from a file
}

// place is where an input lies.
type place struct {
	repository string
	manifest   string
}

// step is one artifact of a walk.
type step struct {
	artifact *artifact // nil where it was not resolved
	report   *provenance.Report
	problem  string // why there is no report
	links    []link
	done     bool
}

// link leads from an artifact to one of its inputs.
type link struct {
	provenance.Input
	to *step // nil where the input is not looked at
}

func newWalk(p provenance.Policy, all bool) *walk {
	w := &walk{policy: p, all: all, left: p.Lineage.Artifacts() - 1, steps: make(map[place]*step)}
	w.bytes.Store(maxWalkBytes)
	return w
}

// attestations hands the bundles to judge an artifact by to use, one at a time.
func (a *artifact) attestations(ctx context.Context, use func(attestation)) (err error) {
	if r := a.walk.recorded; r != nil {
		for _, b := range r.bundles[place{a.ref.Name, string(a.desc.Digest)}] {
			use(attestation{bundle: b})
		}
		return nil
	}
	if a.referrers, err = listReferrers(ctx, a.store, a.desc); err != nil {
		return err
	}
	if err := fetchBundles(ctx, a.store, a.desc, a.referrers, use); err != nil {
		return err
	}
	if err := a.cosignTag(ctx, use); err != nil {
		return err
	}
	for _, b := range a.c.Bundles {
		use(attestation{bundle: b})
	}
	return nil
}

// evaluate judges an artifact with the reports of its inputs.
func (a *artifact) evaluate(ctx context.Context, in *provenance.Evidence) (*provenance.Report, error) {
	w := a.walk
	if w.lists == nil {
		w.lists = a.fetchLists(ctx)
	}
	in.Denials = append(in.Denials, w.lists.proven...)
	in.Rejected = append(in.Rejected, w.lists.rejected...)
	s := a.step()
	var inputs []provenance.Input
	if w.all || len(w.policy.Lineage.Repositories) > 0 {
		inputs = a.policy.Inputs(*in)
	}
	for _, input := range inputs {
		if input.Problem != "" || !input.Needed && !w.all {
			s.links = append(s.links, link{Input: input})
			continue
		}
		found, err := w.look(ctx, a, input)
		if err != nil {
			return nil, err
		}
		s.links = append(s.links, link{input, found})
		in.Materials = append(in.Materials, provenance.MaterialReport{Repository: input.Repository, Manifest: input.Manifest,
			Report: found.report, Problem: found.problem})
	}
	s.report, s.done = a.policy.Evaluate(*in), true
	// A list that was not served today says nothing about tomorrow.
	if !s.report.Allowed && temporary(w.lists.err) {
		return nil, w.lists.err
	}
	return s.report, ctx.Err()
}

// step is the artifact's own in its walk.
func (a *artifact) step() *step {
	at := place{a.ref.Name, string(a.desc.Digest)}
	if a.walk.steps[at] == nil {
		a.walk.steps[at] = &step{}
	}
	a.walk.steps[at].artifact = a
	return a.walk.steps[at]
}

// look judges an input. What was withheld for now is an error; anything else
// that keeps it from being judged is for the policy to refuse.
func (w *walk) look(ctx context.Context, from *artifact, input provenance.Input) (*step, error) {
	at := place{input.Repository, string(input.Manifest)}
	if s := w.steps[at]; s != nil {
		if !s.done {
			return &step{problem: "it was made from itself, say the statements"}, nil
		}
		return s, nil
	}
	s := &step{}
	switch {
	case from.depth+1 > w.policy.Lineage.Depth():
		// Not remembered: it may be nearer on another way.
		return &step{problem: fmt.Sprintf("it is more than %d steps away", w.policy.Lineage.Depth())}, nil
	case w.left == 0:
		return &step{problem: fmt.Sprintf("it is one of more than %d artifacts", w.policy.Lineage.Artifacts())}, nil
	}
	w.left--
	w.steps[at] = s
	err := func() error {
		op := from.c.begin(from.op, input.Repository+"@"+string(input.Manifest))
		a, err := from.c.resolve(ctx, op)
		if err != nil {
			return err
		}
		a.walk, a.depth = w, from.depth+1
		a.store = meter{a.store, &w.bytes}
		return a.judge(ctx, w.policy.For(input.Repository))
	}()
	s.done = true
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case temporary(err):
		return nil, fmt.Errorf("input %s@%s: %w", input.Repository, input.Manifest, err)
	case err != nil:
		s.problem = err.Error()
	}
	return s, nil
}

// meter is a store that serves so many bytes.
type meter struct {
	registry.Store
	left *atomic.Int64
}

func (m meter) Fetch(ctx context.Context, d ocispec.Descriptor, off, n int64) (io.ReadCloser, error) {
	if m.left.Add(-n) < 0 {
		return nil, fmt.Errorf("%w: the inputs of one artifact take more than %d bytes to look at", ErrLimit, maxWalkBytes)
	}
	return m.Store.Fetch(ctx, d, off, n)
}

// denialLists are those that a policy names, wherever they came from.
type denialLists struct {
	proven   []provenance.Verified
	rejected []provenance.Rejection
	bundles  []*provenance.Bundle
	err      error // why a source could not be read
}

// fetchLists reads the denial lists from the sources that the policy names. One
// that cannot be read is left out: whether those that are there suffice is for
// the policy to say.
func (a *artifact) fetchLists(ctx context.Context) *denialLists {
	l := &denialLists{}
	add := func(source string, b *provenance.Bundle, err error) {
		if err == nil {
			l.bundles = append(l.bundles, b)
			var got *provenance.Verified
			if got, err = a.prove(ctx, b); err == nil {
				l.proven = append(l.proven, *got)
				return
			}
		}
		l.err = errors.Join(l.err, err)
		l.rejected = append(l.rejected, provenance.Rejection{Source: "denial list " + source, Reason: err.Error()})
	}
	if r := a.walk.recorded; r != nil {
		for _, b := range r.lists {
			add("of the evidence", b, nil)
		}
		return l
	}
	for _, s := range a.policy.Denials {
		if s.Source != "" {
			b, err := a.c.fetchList(ctx, s.Source)
			add(s.Source, b, err)
		}
	}
	return l
}

func (c *Client) fetchList(ctx context.Context, source string) (*provenance.Bundle, error) {
	ref, err := registry.ParseReference(source)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	store, err := c.current.Open(ctx, ref.Name)
	if err != nil {
		return nil, err
	}
	d, err := store.Resolve(ctx, ref.Tag)
	if err != nil {
		return nil, err
	}
	raw, err := readBlob(ctx, store, d, maxReferrerManifest)
	if err != nil {
		return nil, err
	}
	m, err := decodeManifest(raw)
	if err != nil {
		return nil, err
	}
	if !isBundle(m) {
		return nil, fmt.Errorf("%w: %s is no signed denial list", ErrFormat, source)
	}
	b, err := readBlob(ctx, store, m.Layers[0], maxReferrerBlob)
	if err != nil {
		return nil, err
	}
	return provenance.ParseBundle(b)
}

// PublishDenials signs a denial list and makes it the one that ref names, a
// repository and tag: what a policy calls its source. The list's sequence must
// be higher than that of the one before, or readers go on heeding that one.
func (c *Client) PublishDenials(ctx context.Context, ref string, s provenance.Signer, l provenance.DenialList) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("deny", ref)
	d, err := func() (ocispec.Descriptor, error) {
		target, store, err := c.openWrite(ctx, op)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if target.Tag == "" || target.Digest != "" {
			return ocispec.Descriptor{}, fmt.Errorf("%w: %q names no tag to publish the list under", ErrConfig, ref)
		}
		st, err := provenance.NewDenials(l)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		b, err := sign(ctx, s, st, l.Subject())
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		d, err := pushReferrer(ctx, store, ocispec.Descriptor{}, smallArtifact{artifactType: provenance.BundleMediaType, layers: []layerBytes{newLayer(provenance.BundleMediaType, b.Bytes())}})
		if err == nil {
			err = store.Tag(ctx, d, target.Tag)
		}
		return d, err
	}()
	return d, op.fail(op.outcome(ctx, Event{Digest: d.Digest, Reason: fmt.Sprintf("denial list %q, sequence %d", clip(l.Name), l.Sequence)}, err))
}
