// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// Attest signs a statement about the artifact and attaches it. ref must be by
// digest: what a tag points to may have changed since the caller looked, and
// the signature would say that it is good.
func (c *Client) Attest(ctx context.Context, ref string, s provenance.Signer, st provenance.Statement) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("attest", ref)
	a, store, err := c.pinned(ctx, op)
	if err != nil {
		return ocispec.Descriptor{}, op.fail(err)
	}
	b, err := sign(ctx, s, st, a.desc.Digest)
	if err != nil {
		return ocispec.Descriptor{}, op.fail(err)
	}
	d, err := a.attach(ctx, store, b)
	return d, op.fail(err)
}

// Attach attaches an attestation that was signed elsewhere. Its one subject must
// be the artifact, or its plaintext as a plaintext statement names it that is
// attached already: a builder's own bundle is carried as he signed it. Whether to
// trust either signer is for policies to say.
func (c *Client) Attach(ctx context.Context, ref string, b *provenance.Bundle) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("attach", ref)
	d, err := func() (ocispec.Descriptor, error) {
		_, store, err := c.openWrite(ctx, op)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		a, err := c.resolve(ctx, op)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		_, subjects, err := provenance.DecodeStatement(b.Envelope().Payload, nil)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		if ok, err := a.concerns(ctx, subjects); err != nil {
			return ocispec.Descriptor{}, err
		} else if !ok {
			return ocispec.Descriptor{}, fmt.Errorf("%w: the statement is about %v, not about %s", ErrConfig, subjects, a.desc.Digest)
		}
		return a.attach(ctx, store, b)
	}()
	return d, op.fail(err)
}

// concerns reports whether a statement is about the artifact or its plaintext.
// It keeps mistakes out and proves nothing.
func (a *artifact) concerns(ctx context.Context, subjects []digest.Digest) (bool, error) {
	if slices.Contains(subjects, a.desc.Digest) {
		return true, nil
	}
	listed, err := listReferrers(ctx, a.store, a.desc)
	if err != nil {
		return false, err
	}
	found := false
	err = fetchBundles(ctx, a.store, a.desc, listed, func(f attestation) {
		st, err := f.bundle.Statement()
		if err != nil {
			return
		}
		if p, err := provenance.ParsePlaintext(st); err == nil && (slices.Contains(subjects, p.Root) || slices.Contains(subjects, p.Manifest)) {
			found = true
		}
	})
	return found, err
}

func (a *artifact) attach(ctx context.Context, store registry.WriteStore, b *provenance.Bundle) (ocispec.Descriptor, error) {
	var d ocispec.Descriptor
	bundle, err := bundleArtifact(b)
	if err == nil {
		d, err = pushReferrer(ctx, store, a.desc, bundle)
	}
	if err == nil {
		err = readBack(ctx, store, a.desc, []ocispec.Descriptor{d})
	}
	st, stErr := b.Statement()
	if stErr != nil {
		return d, stErr
	}
	return d, a.outcome(ctx, Event{Reason: "attestation " + clip(st.PredicateType)}, err)
}

// TagOptions say how an artifact is released. Signer is required.
type TagOptions struct {
	// Signer signs the release statement.
	Signer provenance.Signer
	// Name is the name of the model in it. Default: the repository path without
	// host; a layout on disk has none and needs this.
	Name string
	// Sequence orders releases. Default: seconds since 1970.
	Sequence uint64
	// Expires is when the release must no longer be opened by tag. Zero: never.
	Expires time.Time
}

// Tag releases an artifact under further tags: it signs a release statement
// that holds them, and then moves them. ref must be by digest.
func (c *Client) Tag(ctx context.Context, ref string, o TagOptions, tags ...string) error {
	c.init()
	op := c.begin("tag", ref)
	a, store, err := c.pinned(ctx, op)
	if err != nil {
		return op.fail(err)
	}
	return op.fail(op.outcome(ctx, Event{Reason: fmt.Sprintf("tags %q", tags)}, a.release(ctx, store, o, tags)))
}

func (a *artifact) release(ctx context.Context, store registry.WriteStore, o TagOptions, tags []string) error {
	switch {
	case o.Signer == nil:
		return fmt.Errorf("%w: a tag without a signed release is refused by every reader; give a Signer", ErrConfig)
	case len(tags) == 0:
		return fmt.Errorf("%w: no tags", ErrConfig)
	case !a.indexed:
		return fmt.Errorf("%w: an artifact without an index cannot be released", ErrFormat)
	case o.Name == "":
		if o.Name = defaultName(a.ref.Name); o.Name == "" {
			return fmt.Errorf("%w: %s has no name that a release could bear; set Name", ErrConfig, a.ref.Name)
		}
	}
	st, err := newRelease(a.c, provenance.Release{Name: o.Name, Tags: tags, Sequence: o.Sequence, Expires: o.Expires,
		Profile: a.manifest.Annotations[profileAnnotation], IndexDigest: a.indexDescriptor().Digest})
	if err != nil {
		return err
	}
	b, err := sign(ctx, o.Signer, st, a.desc.Digest)
	if err != nil {
		return err
	}
	if _, err := a.attach(ctx, store, b); err != nil {
		return err
	}
	for _, tag := range tags {
		if err := store.Tag(ctx, a.desc, tag); err != nil {
			return err
		}
	}
	return nil
}

// newRelease makes a release statement. Seconds are a sequence that grows
// without state, also in CI jobs that know nothing of each other.
func newRelease(c *Client, r provenance.Release) (provenance.Statement, error) {
	if r.Sequence == 0 {
		r.Sequence = uint64(c.now().Unix())
	}
	return provenance.NewRelease(r)
}

// Resolve returns the descriptor that ref names now. A server that polls it
// learns of a new version; what to make of that is for Open.
func (c *Client) Resolve(ctx context.Context, ref string) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("resolve", ref)
	a, err := c.resolve(ctx, op)
	if err != nil {
		return ocispec.Descriptor{}, op.fail(err)
	}
	return a.desc, nil
}

// Info is what an artifact says of itself. None of it is verified.
type Info struct {
	Descriptor   ocispec.Descriptor
	Encrypted    bool
	Indexed      bool   // False: made by another tool, without an index.
	Files        []File // Empty where encrypted: their names are sealed.
	Layers       int    // Content layers.
	Bytes        int64  // Stored bytes of all content layers.
	Sequence     uint64 // The highest of the releases found.
	Attestations []Attestation
	Grants       int // Grant documents found in the listing.
}

// Attestation is one statement that is attached to an artifact, unverified.
type Attestation struct {
	Descriptor    ocispec.Descriptor // Of the referrer.
	PredicateType string
}

// Inspect reads what an artifact says of itself. It verifies digests and no
// signature: use it to look, never to decide.
func (c *Client) Inspect(ctx context.Context, ref string) (*Info, error) {
	c.init()
	op := c.begin("inspect", ref)
	a, err := c.resolve(ctx, op)
	if err != nil {
		return nil, op.fail(err)
	}
	info, err := a.inspect(ctx)
	return info, op.fail(err)
}

func (a *artifact) inspect(ctx context.Context) (*Info, error) {
	info := &Info{Descriptor: a.desc, Indexed: a.indexed, Layers: len(a.manifest.Layers)}
	if a.indexed {
		t, err := a.content(ctx)
		if err != nil {
			return nil, err
		}
		defer t.release()
		info.Layers--
		info.Encrypted = t.index.Profile == index.Encrypted
		for _, f := range t.files {
			info.Files = append(info.Files, File{Name: f.Path, Role: f.Role, Size: f.Size})
		}
	}
	for _, l := range a.manifest.Layers[:info.Layers] {
		info.Bytes += l.Size
		if !a.indexed {
			info.Files = append(info.Files, File{Name: clip(l.Annotations[filepathAnnotation]), Role: clip(l.MediaType), Size: l.Size})
		}
	}
	listed, err := listReferrers(ctx, a.store, a.desc)
	if err != nil {
		return nil, err
	}
	info.Grants = len(listed.grants)
	list := func(f attestation) {
		st, err := f.bundle.Statement()
		if err != nil {
			return
		}
		info.Attestations = append(info.Attestations, Attestation{Descriptor: f.desc, PredicateType: clip(st.PredicateType)})
		if r, err := provenance.ParseRelease(st); err == nil {
			info.Sequence = max(info.Sequence, r.Sequence)
		}
	}
	if err := fetchBundles(ctx, a.store, a.desc, listed, list); err != nil {
		return nil, err
	}
	if err := a.cosignTag(ctx, list); err != nil {
		return nil, err
	}
	return info, nil
}
