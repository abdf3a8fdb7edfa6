// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// finish stores index, config and manifest.
func (u *uploader) finish(ctx context.Context, layers []*uploaded, o *PushOptions, name string) (manifest ocispec.Descriptor, indexDigest godigest.Digest, err error) {
	fail := func(err error) (ocispec.Descriptor, godigest.Digest, error) {
		return ocispec.Descriptor{}, "", err
	}
	h := index.Header{FormatVersion: 1, Profile: u.plan.profile, SegmentSize: u.plan.segment}
	var digests []byte
	var descs []ocispec.Descriptor
	for i, l := range layers {
		h.Layers = append(h.Layers, index.Layer{Digest: l.digest, Size: l.size})
		digests = append(digests, l.digests...)
		d, err := describeLayer(u.plan.profile, i, u.plan.layers[i], l.digest, l.size)
		if err != nil {
			return fail(err)
		}
		descs = append(descs, d)
	}
	if u.key == nil {
		h.Files = u.plan.files
	} else if h.Encryption, err = u.encryption(layers, o); err != nil {
		return fail(err)
	}
	x, err := index.New(h, digests)
	if err != nil {
		return fail(err)
	}
	b, err := x.Encode()
	if err != nil {
		return fail(err)
	}
	stored := newLayer(indexMediaType, b)
	d, err := describeIndex(u.plan.profile, stored.desc.Digest, stored.desc.Size)
	if err != nil {
		return fail(err)
	}
	descs = append(descs, d)
	if b, err = encodeConfig(u.plan.profile, u.config(o, name), descs); err != nil {
		return fail(err)
	}
	config := newLayer(configMediaType, b)
	stored.known, config.known = !u.encrypted(), !u.encrypted()
	if err := writeBlobs(ctx, u.store, []layerBytes{stored, config}); err != nil {
		return fail(err)
	}
	if b, err = encodeManifest(u.plan.profile, config.desc, descs); err != nil {
		return fail(err)
	}
	if _, err := u.store.PushManifest(ctx, ocispec.MediaTypeImageManifest, b); err != nil {
		return fail(err)
	}
	// What is signed is the digest of our bytes, whatever came back. K2.
	manifest = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageManifest, ArtifactType: artifactType, Digest: digestOf(b), Size: int64(len(b))}
	return manifest, d.Digest, nil
}

// encryption makes the encryption section of the index. FORMAT.md §6.
func (u *uploader) encryption(layers []*uploaded, o *PushOptions) (*index.Encryption, error) {
	b, err := json.Marshal(index.SealedFiles{Files: u.plan.files})
	if err != nil {
		return nil, err
	}
	sealed, err := u.key.SealIndex(u.id, b)
	if err != nil {
		return nil, err
	}
	commitment := u.key.Commitment(u.id)
	e := &index.Encryption{
		ArtifactID:   hex.EncodeToString(u.id[:]),
		Commitment:   hex.EncodeToString(commitment[:]),
		MinWrapClass: encrypt.PostQuantum.String(),
		Sealed:       sealed,
	}
	if o.AllowClassical != "" {
		e.MinWrapClass = encrypt.Classical.String()
	}
	for _, l := range layers {
		e.Headers = append(e.Headers, l.header)
	}
	return e, nil
}

func (u *uploader) config(o *PushOptions, name string) Config {
	var c Config
	if o.Config != nil {
		c = *o.Config
	}
	if c.Name == "" {
		c.Name = path.Base("/" + name)
	}
	if c.Name == "/" {
		c.Name = "model"
	}
	if c.Format == "" {
		c.Format = formatOf(u.plan.sources)
	}
	return c
}

// attest signs and attaches the statements, and after them the grant, in one
// change of the listing where the store can. What may fail elsewhere, at a
// signer or a key service, is done before anything is stored or listed.
func (u *uploader) attest(ctx context.Context, manifest ocispec.Descriptor, indexDigest godigest.Digest, o *PushOptions, name string, tags []string) ([]ocispec.Descriptor, error) {
	var out []smallArtifact
	if o.Signer != nil {
		release, err := newRelease(u.c, provenance.Release{Name: name, Tags: tags, Sequence: o.Sequence,
			Expires: o.Expires, Profile: string(u.plan.profile), IndexDigest: indexDigest})
		if err != nil {
			return nil, err
		}
		for _, st := range append(slices.Clone(o.Statements), release) {
			b, err := sign(ctx, o.Signer, st, manifest.Digest)
			if err != nil {
				return nil, err
			}
			a, err := bundleArtifact(b)
			if err != nil {
				return nil, err
			}
			out = append(out, a)
		}
	}
	if u.key != nil {
		a, err := u.grant(ctx, manifest, o)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	manifests, err := makeReferrers(ctx, u.store, manifest, out...)
	if err != nil {
		return nil, err
	}
	return pushReferrers(ctx, u.store, manifests)
}

// grant wraps the key for the recipients.
func (u *uploader) grant(ctx context.Context, manifest ocispec.Descriptor, o *PushOptions) (smallArtifact, error) {
	binding := encrypt.Binding{ArtifactID: u.id, Commitment: u.key.Commitment(u.id), Manifest: manifest.Digest}
	stanzas, err := encrypt.WrapKey(ctx, u.key, binding, o.Recipients...)
	if err != nil {
		return smallArtifact{}, err
	}
	_, layers, err := newGrant(ctx, manifest, binding, stanzas, o.Signer)
	if err != nil {
		return smallArtifact{}, err
	}
	return smallArtifact{artifactType: grantArtifactType, layers: layers}, nil
}

// sign signs a statement about a manifest.
func sign(ctx context.Context, s provenance.Signer, st provenance.Statement, manifest godigest.Digest) (*provenance.Bundle, error) {
	if s == nil {
		return nil, fmt.Errorf("%w: a statement needs a Signer", ErrConfig)
	}
	payload, err := st.Encode(manifest)
	if err != nil {
		return nil, err
	}
	return s.Sign(ctx, provenance.PayloadType, payload)
}

// readBackAttempts bounds reading a listing back. Registries that keep
// referrers by tag may answer from a replica that is behind.
const readBackAttempts = 6

var (
	errNotListed = errors.New("the registry does not list the attestations that were pushed; no tag was moved")
	errFlooded   = fmt.Errorf("%w: so much is listed that what was pushed is not found: readers must name its digest, or somebody must delete the rest", ErrLimit)
)

// readBack waits until the registry lists all of the referrers. K47.
func readBack(ctx context.Context, store registry.Store, subject ocispec.Descriptor, want []ocispec.Descriptor) error {
	for attempt := range readBackAttempts {
		if err := pause(ctx, attempt); err != nil {
			return err
		}
		listed, err := listReferrers(ctx, store, subject)
		if err != nil {
			return err
		}
		switch {
		case !slices.ContainsFunc(want, func(d ocispec.Descriptor) bool { return !listed.seen[d.Digest] }):
			return nil
		case listed.flooded:
			return fmt.Errorf("%w: %s", errFlooded, want[len(want)-1].Digest)
		}
	}
	return &registry.Error{Op: "list referrers", Reference: string(subject.Digest), Err: errNotListed}
}
