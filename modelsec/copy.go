// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"io"
	"slices"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// CopyGrants says what becomes of the grants of a copied artifact.
type CopyGrants string

// A copy is often made for somebody else, so grants stay behind unless asked
// for: their key ids and number say something about who uses a model. K33.
const (
	CopyNoGrants  CopyGrants = "none"
	CopyAllGrants CopyGrants = "all"
)

// CopyOptions say what to copy. Nil: no policy, no grants.
type CopyOptions struct {
	// Policy must admit the artifact. Nil: whatever the digests cover is
	// copied, and the reader's policy decides.
	Policy *provenance.Policy
	// Grants is CopyNoGrants (default) or CopyAllGrants.
	Grants CopyGrants
}

// Copy copies an artifact with its attestations to another place, byte for
// byte: registry or layout, either way. Every layer is compared with its
// digest, and where the artifact has an index also with its segments, before
// the copy is complete. The tag of dst, if it has one, is moved last. No key
// is needed.
func (c *Client) Copy(ctx context.Context, dst, src string, o *CopyOptions) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("copy", src)
	if o == nil {
		o = &CopyOptions{}
	}
	d, err := c.copy(ctx, op, dst, o)
	return d, op.fail(op.outcome(ctx, Event{Bytes: op.sent(), Reason: "to " + dst}, err))
}

func (c *Client) copy(ctx context.Context, op *operation, dst string, o *CopyOptions) (ocispec.Descriptor, error) {
	if o.Grants != "" && o.Grants != CopyNoGrants && o.Grants != CopyAllGrants {
		return ocispec.Descriptor{}, fmt.Errorf("%w: Grants %q, want %q or %q", ErrConfig, o.Grants, CopyNoGrants, CopyAllGrants)
	}
	target, store, err := c.openWrite(ctx, c.begin("copy", dst))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	a, err := c.resolve(ctx, op)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if target.Digest != "" && target.Digest != a.desc.Digest {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the destination names %s, the source is %s", ErrConfig, target.Digest, a.desc.Digest)
	}
	if o.Policy != nil {
		if err := a.judge(ctx, *o.Policy); err != nil {
			return ocispec.Descriptor{}, err
		}
		if err := a.enforce(ctx); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	if a.referrers == nil {
		if a.referrers, err = listReferrers(ctx, a.store, a.desc); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	p := &copier{artifact: a, dst: store, target: target}
	if err := p.blobs(ctx); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := store.PushManifest(ctx, a.desc.MediaType, a.raw); err != nil {
		return ocispec.Descriptor{}, err
	}
	referrers, err := p.evidence(ctx, o.Grants == CopyAllGrants)
	if err != nil {
		return a.desc, err
	}
	if err := readBack(ctx, store, a.desc, referrers); err != nil {
		return a.desc, err
	}
	if target.Tag != "" {
		err = store.Tag(ctx, a.desc, target.Tag)
	}
	return a.desc, err
}

// copier copies one artifact.
type copier struct {
	*artifact
	dst     registry.WriteStore
	target  registry.Reference
	content *content // nil where there is no index
	pace    *pushPace
}

// blobs copies config and layers, each once.
func (p *copier) blobs(ctx context.Context) error {
	if p.indexed {
		t, err := p.artifact.content(ctx)
		if err != nil {
			return err
		}
		defer t.release()
		p.content = t
	}
	var total int64
	seen := make(map[godigest.Digest]bool)
	var ordinals []int
	for i, l := range p.manifest.Layers {
		if !seen[l.Digest] {
			seen[l.Digest] = true
			ordinals = append(ordinals, i)
			total += l.Size
		}
	}
	defer p.watch(total)()
	if !seen[p.manifest.Config.Digest] {
		ordinals = append(ordinals, configOrdinal)
	}
	work := newCrew(ctx, len(ordinals), func(ctx context.Context, i int) error {
		if ordinals[i] == configOrdinal {
			return p.blob(ctx, p.manifest.Config, configOrdinal)
		}
		return p.blob(ctx, p.manifest.Layers[ordinals[i]], ordinals[i])
	})
	most := int(p.c.budget.buffers() / p.piece())
	if mountable(p.target.Name, p.ref.Name) {
		most = pushParts // of one registry, whose connections have to do for both sides
	}
	p.pace = newPushPace(work, cap(p.c.lanes), p.piece(), pushParts, most)
	work.resize(pushParts)
	return work.wait()
}

// piece is how many bytes of a blob are in memory at a time.
func (p *copier) piece() int64 {
	if p.content != nil {
		return p.content.maxStored()
	}
	return 1 << 20
}

// configOrdinal stands for the config where others are ordinals of layers.
const configOrdinal = -1

// blob copies one blob. layer is its ordinal.
func (p *copier) blob(ctx context.Context, d ocispec.Descriptor, layer int) error {
	there, err := p.dst.Has(ctx, d)
	if err == nil && !there {
		there, _, err = p.c.mount(ctx, p.dst, p.target.Name, p.ref.Name, d)
	}
	if err != nil || there {
		if there && layer >= 0 {
			p.done.Add(d.Size)
			p.found.Add(d.Size)
		}
		return err
	}
	size := p.piece()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A push too has its writer before its memory, and its memory before a
	// reader: in one order, nobody waits for who waits for him.
	w, err := p.dst.Create(ctx, d.Size)
	if err != nil {
		return err
	}
	defer w.Close()
	if err := p.c.budget.borrow(ctx, size); err != nil {
		return err
	}
	defer p.c.budget.repay(size)
	body := openBlob(ctx, p.store, d)
	defer body.Close()
	line := &pacer{pace: p.pace, out: w, in: body}
	h := digest.New()
	out := io.MultiWriter(h, line)
	buf := make([]byte, size)
	if p.content != nil && layer >= 0 && layer < len(p.content.layers) {
		err = p.segments(out, line, layer, buf)
	} else {
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, line, buf)
	}
	if err != nil {
		return err
	}
	if got := godigest.NewDigest(godigest.SHA256, h); got != d.Digest {
		return fmt.Errorf("%w: want %s, got %s", ErrDigest, d.Digest, got)
	}
	if layer >= 0 && (p.content == nil || layer == len(p.content.layers)) {
		p.done.Add(d.Size)
	}
	return w.Commit(ctx, d.Digest)
}

// segments copies a content layer and compares every segment on the way. K8.
func (p *copier) segments(out io.Writer, in io.Reader, layer int, buf []byte) error {
	t := p.content
	if t.index.Profile == index.Encrypted {
		if err := t.checkHeader(layer, io.TeeReader(in, out)); err != nil {
			return err
		}
		p.done.Add(index.SealHeader)
	}
	g := t.index.Geometry(layer)
	for k := range g.Count() {
		_, n := g.Stored(k)
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return t.segmentError(layer, k, err)
		}
		if err := t.checkDigest(layer, k, buf[:n]); err != nil {
			return err
		}
		if _, err := out.Write(buf[:n]); err != nil {
			return err
		}
		p.done.Add(n)
	}
	return nil
}

// evidence copies the attestations, and the grants where asked, as they are.
func (p *copier) evidence(ctx context.Context, grants bool) ([]ocispec.Descriptor, error) {
	var out []ocispec.Descriptor
	for _, d := range slices.Concat(p.referrers.bundles, p.referrers.unknown, p.referrers.grants) {
		r, err := p.referrer(ctx, d, grants)
		switch {
		case ctx.Err() != nil:
			return out, context.Cause(ctx)
		case temporary(err):
			return out, err
		case err != nil || r == nil:
			continue // junk that anybody can list must not stop the copy
		case len(out) == maxReferrersRead:
			return out, fmt.Errorf("%w: more than %d attestations", ErrLimit, maxReferrersRead)
		}
		for _, b := range r.blobs {
			if err := writeBlob(ctx, p.dst, b); err != nil {
				return out, err
			}
		}
		pushed, err := p.dst.PushManifest(ctx, ocispec.MediaTypeImageManifest, r.manifest)
		if err != nil {
			return out, err
		}
		out = append(out, pushed)
	}
	return out, nil
}

// copiedReferrer is a referrer as the source has it.
type copiedReferrer struct {
	manifest []byte
	blobs    []layerBytes
}

// referrer reads an attestation, or a grant where those are wanted, and returns
// nil for anything else.
func (p *copier) referrer(ctx context.Context, d ocispec.Descriptor, grants bool) (*copiedReferrer, error) {
	m, err := p.referrers.fetch(ctx, p.store, d, p.desc)
	if err != nil || !isBundle(m) && !(grants && isGrant(m)) {
		return nil, err
	}
	r := &copiedReferrer{}
	for _, l := range append(slices.Clone(m.Layers), m.Config) {
		b, err := readBlob(ctx, p.store, l, maxReferrerBlob)
		if err != nil {
			return nil, err
		}
		r.blobs = append(r.blobs, layerBytes{desc: ocispec.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size}, b: b, known: true})
	}
	d.MediaType = ocispec.MediaTypeImageManifest
	r.manifest, err = readBlob(ctx, p.store, d, maxReferrerManifest)
	return r, err
}
