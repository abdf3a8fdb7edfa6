// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// grantBatch is how many grants are fetched at a time. Local keys are tried
// after every batch, so an ordinary artifact needs one.
const grantBatch = 16

// grantRecord is one grant document as it was found.
type grantRecord struct {
	desc     ocispec.Descriptor // of the referrer
	doc      *encrypt.Grant
	document godigest.Digest
	size     int64              // bytes of the document
	bundle   *provenance.Bundle // nil: unsigned
}

// bindingOf says what the keys of an encrypted artifact are bound to.
func bindingOf(x *index.Index, manifest godigest.Digest) (encrypt.Binding, error) {
	b := encrypt.Binding{Manifest: manifest}
	if _, err := hex.Decode(b.ArtifactID[:], []byte(x.Encryption.ArtifactID)); err != nil {
		return b, err
	}
	_, err := hex.Decode(b.Commitment[:], []byte(x.Encryption.Commitment))
	return b, err
}

// newGrant makes one grant document, signed where there is a signer.
func newGrant(ctx context.Context, manifest ocispec.Descriptor, b encrypt.Binding, stanzas []encrypt.Stanza, signer provenance.Signer) (r *grantRecord, layers []layerBytes, err error) {
	r = &grantRecord{doc: &encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest, Recipients: stanzas}}
	doc, err := r.doc.Encode()
	if err != nil {
		return nil, nil, err
	}
	layers = []layerBytes{newLayer(grantArtifactType, doc)}
	r.document, r.size = layers[0].desc.Digest, layers[0].desc.Size
	if signer == nil {
		return r, layers, nil
	}
	st, err := provenance.NewGrant(r.document)
	if err != nil {
		return nil, nil, err
	}
	if r.bundle, err = sign(ctx, signer, st, manifest.Digest); err != nil {
		return nil, nil, err
	}
	return r, append(layers, newLayer(provenance.BundleMediaType, r.bundle.Bytes())), nil
}

// fetchGrant reads one grant. What cannot be read as one is nil: the listing is
// open to anybody who can write to the registry, and junk in it must not
// keep a good grant from being found. What cannot be read for now is an error.
func fetchGrant(ctx context.Context, store registry.Store, l *listing, d, subject ocispec.Descriptor) (*grantRecord, error) {
	m, err := l.fetch(ctx, store, d, subject)
	if err != nil || !isGrant(m) {
		return nil, onlyTemporary(err)
	}
	b, err := readBlob(ctx, store, m.Layers[0], maxReferrerBlob)
	if err != nil {
		return nil, onlyTemporary(err)
	}
	r := &grantRecord{desc: d, document: digestOf(b), size: int64(len(b))}
	if r.doc, err = encrypt.ParseGrant(b); err != nil {
		return nil, nil
	}
	if len(m.Layers) == 2 && m.Layers[1].MediaType == provenance.BundleMediaType {
		if b, err = readBlob(ctx, store, m.Layers[1], maxReferrerBlob); err == nil {
			r.bundle, _ = provenance.ParseBundle(b)
		}
	}
	return r, onlyTemporary(err)
}

func onlyTemporary(err error) error {
	if temporary(err) {
		return err
	}
	return nil
}

// grants reads the grants of an artifact, a batch at a time, until use says to
// stop. Documents of other artifacts are not handed out. Where one could not be
// read for now and use has not stopped, that is the error: it may be the one that
// matters.
func (a *artifact) grants(ctx context.Context, b encrypt.Binding, use func([]*grantRecord) (stop bool)) error {
	named := a.named(ctx)
	candidates := slices.DeleteFunc(a.referrers.grantCandidates(), func(d ocispec.Descriptor) bool {
		return slices.ContainsFunc(named, func(n ocispec.Descriptor) bool { return n.Digest == d.Digest })
	})
	candidates = slices.Concat(named, candidates)
	var withheld error
	for batch := range slices.Chunk(candidates, grantBatch) {
		found, errs := make([]*grantRecord, len(batch)), make([]error, len(batch))
		var fetches sync.WaitGroup
		for i, d := range batch {
			fetches.Go(func() { found[i], errs[i] = fetchGrant(ctx, a.store, a.referrers, d, a.desc) })
		}
		fetches.Wait()
		if err := ctx.Err(); err != nil {
			return err
		}
		if withheld == nil {
			withheld = cmp.Or(errs...)
		}
		found = slices.DeleteFunc(found, func(r *grantRecord) bool { return r == nil || !r.doc.Matches(b) })
		if use(found) {
			return nil
		}
	}
	return withheld
}

// named are the grants that the client was told of, as far as they are here.
func (a *artifact) named(ctx context.Context) (out []ocispec.Descriptor) {
	for _, d := range a.c.GrantDigests {
		if desc, err := a.store.Resolve(ctx, string(d)); err == nil {
			out = append(out, desc)
		}
	}
	return out
}

// allGrants is grants for callers that hold what they are handed.
func (a *artifact) allGrants(ctx context.Context, b encrypt.Binding, use func(*grantRecord)) error {
	var held int64
	err := a.grants(ctx, b, func(batch []*grantRecord) bool {
		for _, r := range batch {
			if held += r.size; held > maxGrantBytes {
				return true
			}
			use(r)
		}
		return false
	})
	if err == nil && held > maxGrantBytes {
		err = fmt.Errorf("%w: more than %d bytes of grants are listed", ErrLimit, maxGrantBytes)
	}
	return err
}

// signedGrant reports whether a grant signer of the policy signed the document.
func (a *artifact) signedGrant(ctx context.Context, r *grantRecord) bool {
	if r.bundle == nil {
		return false
	}
	for _, v := range a.verifiers {
		if got, err := v.Verify(ctx, r.bundle); err == nil && a.grantRule.Verify(*got, r.document) == nil {
			return true
		}
	}
	return false
}
