// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"slices"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// grantWriter replaces the grant documents of an artifact.
type grantWriter struct {
	*artifact
	store   registry.WriteStore
	binding encrypt.Binding
	signer  provenance.Signer
	drop    []string
	dropped int
}

// rewrite writes one document with the entries given and those of the
// documents that it replaces, less the dropped ones, and then deletes the
// replaced ones: an entry that stays is in the listing at every moment.
//
// Signed and unsigned documents are never mixed. What is merged into a signed
// document would be vouched for by its signer, whoever wrote it before.
func (w *grantWriter) rewrite(ctx context.Context, add []encrypt.Stanza) (ocispec.Descriptor, error) {
	var signed, unsigned []*grantRecord
	err := w.allGrants(ctx, w.binding, func(r *grantRecord) {
		if r.bundle != nil {
			signed = append(signed, r)
		} else {
			unsigned = append(unsigned, r)
		}
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	mine, others := unsigned, []*grantRecord(nil)
	if w.signer != nil {
		// Only what a grant signer of the policy signed may be signed again.
		mine, others = nil, unsigned
		for _, r := range signed {
			if w.signedGrant(ctx, r) {
				mine = append(mine, r)
			} else {
				others = append(others, r)
			}
		}
	} else if slices.ContainsFunc(signed, w.affected) {
		return ocispec.Descriptor{}, fmt.Errorf("%w: give a Signer to sign what takes its place", ErrGrantSigned)
	}
	d, err := w.replace(ctx, add, mine, w.signer)
	if errors.Is(err, errNotVouched) && !slices.ContainsFunc(mine, w.affected) {
		// It would take their value from entries that it vouched for.
		d, err = w.replace(ctx, add, nil, w.signer)
	}
	if err != nil {
		return d, err
	}
	others = slices.DeleteFunc(others, func(r *grantRecord) bool { return !w.affected(r) })
	if len(others) > 0 {
		_, err = w.replace(ctx, nil, others, nil)
	}
	return d, err
}

// affected reports whether a document holds an entry that is to be dropped.
func (w *grantWriter) affected(r *grantRecord) bool {
	return slices.ContainsFunc(r.doc.Recipients, func(s encrypt.Stanza) bool { return slices.Contains(w.drop, s.KeyID) })
}

// errNotVouched means that what the policy vouches for would be signed by
// somebody whom it does not know.
var errNotVouched = fmt.Errorf("%w by a grant signer of the policy, and Signer is none", ErrGrantSigned)

// replace puts as few documents as it takes in the place of others. The first
// holds the entries to add.
func (w *grantWriter) replace(ctx context.Context, add []encrypt.Stanza, old []*grantRecord, signer provenance.Signer) (first ocispec.Descriptor, err error) {
	for i, group := range w.groups(add, old) {
		d, err := w.replaceGroup(ctx, add, group, signer)
		if i == 0 {
			first = d
		}
		if err != nil {
			return first, err
		}
		add = nil
	}
	return first, nil
}

// groups says which documents are merged into one. Those with an entry to drop
// are all in some group; others stay as they are where there is no room, and a
// flood of junk does not keep an entry from being dropped.
func (w *grantWriter) groups(add []encrypt.Stanza, old []*grantRecord) [][]*grantRecord {
	const room = maxReferrerBlob * 3 / 4 // for base64 and names
	entries, size := len(add), int64(0)
	for _, s := range add {
		size += int64(len(s.Body) + len(s.Sealed))
	}
	groups := [][]*grantRecord{nil}
	for _, r := range old {
		if entries+len(r.doc.Recipients) > maxGrantEntries || size+r.size > room {
			if !w.affected(r) {
				continue
			}
			groups = append(groups, nil)
			entries, size = 0, 0
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], r)
		entries += len(r.doc.Recipients)
		size += r.size
	}
	return groups
}

func (w *grantWriter) replaceGroup(ctx context.Context, add []encrypt.Stanza, old []*grantRecord, signer provenance.Signer) (d ocispec.Descriptor, err error) {
	if entries := w.merge(add, old); len(entries) > 0 {
		made, layers, err := newGrant(ctx, w.desc, w.binding, entries, signer)
		if err != nil {
			return d, err
		}
		if signer != nil && len(old) > 0 && !w.signedGrant(ctx, made) {
			return d, errNotVouched
		}
		if d, err = pushReferrer(ctx, w.store, w.desc, smallArtifact{artifactType: grantArtifactType, layers: layers}); err != nil {
			return d, err
		}
		if err := readBack(ctx, w.store, w.desc, []ocispec.Descriptor{d}); err != nil {
			return d, err
		}
	}
	for _, r := range old {
		if r.desc.Digest == d.Digest {
			continue
		}
		err := w.store.Delete(ctx, r.desc)
		if err == nil || errors.Is(err, registry.ErrNotFound) {
			continue
		}
		if w.affected(r) {
			return d, fmt.Errorf("%w: %s: %w; delete it at the registry, or publish a new version under a new key", ErrNotRevoked, r.desc.Digest, err)
		}
		w.c.logger().Debug("an old grant document stays at the registry", "digest", r.desc.Digest, "error", err)
	}
	return d, nil
}

// merge lists the entries of a document that takes the place of others. Two
// entries with one key id are both kept, unless we just made one of them
// ourselves: which of the others is junk that somebody planted, only the
// recipient can tell. A grant of some files takes the place of nothing, and
// stays until it is dropped by its key id.
func (w *grantWriter) merge(add []encrypt.Stanza, old []*grantRecord) []encrypt.Stanza {
	entries := slices.Clone(add)
	added := make(map[[2]string]bool)
	for _, s := range add {
		if s.Scope == encrypt.ScopeArtifact {
			added[[2]string{s.Type, s.KeyID}] = true
		}
	}
	has := make(map[string]bool)
	for _, r := range old {
		for _, s := range r.doc.Recipients {
			id := fmt.Sprintf("%q", s) // all of it
			switch {
			case slices.Contains(w.drop, s.KeyID):
				w.dropped++
			case s.Scope == encrypt.ScopeArtifact && added[[2]string{s.Type, s.KeyID}]:
			case !has[id]:
				has[id] = true
				entries = append(entries, s)
			}
		}
	}
	return entries
}
