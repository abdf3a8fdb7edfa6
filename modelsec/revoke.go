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

// ErrNotRevoked means that the registry still serves a grant that was to be
// dropped.
var ErrNotRevoked = errors.New("grant still at the registry")

// ErrGrantSigned means that a signed grant must be rewritten, and the call has
// nobody to sign it.
var ErrGrantSigned = errors.New("the grant is signed")

// RevokeOptions say how a grant is taken back.
type RevokeOptions struct {
	// Signer signs what takes the place of a signed document, and Policy says
	// whose signatures on such documents are good: entries that a stranger
	// signed must not be signed again. A signed document that needs
	// rewriting is an error without both. Nil: only unsigned ones are rewritten.
	Signer provenance.Signer
	Policy *provenance.Policy
}

// Revoke drops the recipients with these key ids from every grant of the
// artifact, which ref must name by digest. It returns ErrNotRevoked where the
// registry does not delete the old documents. Nothing takes back what a
// recipient has opened, or kept of the key: for that, publish a new version.
func (c *Client) Revoke(ctx context.Context, ref string, o *RevokeOptions, keyIDs ...string) error {
	c.init()
	op := c.begin("revoke", ref)
	if o == nil {
		o = &RevokeOptions{}
	}
	err := func() error {
		if len(keyIDs) == 0 {
			return fmt.Errorf("%w: no key ids", ErrConfig)
		}
		a, store, err := c.pinned(ctx, op)
		if err != nil {
			return err
		}
		if (o.Signer == nil) != (o.Policy == nil) {
			return fmt.Errorf("%w: Signer and Policy go together", ErrConfig)
		}
		if o.Policy != nil {
			if err := a.judge(ctx, *o.Policy); err != nil {
				return err
			}
			if err := a.enforce(ctx); err != nil {
				return err
			}
		}
		b, err := a.grantBinding(ctx)
		if err != nil {
			return err
		}
		w := &grantWriter{artifact: a, store: store, binding: b, signer: o.Signer, drop: keyIDs}
		if _, err = w.rewrite(ctx, nil); err == nil && w.dropped == 0 {
			err = fmt.Errorf("%w: no grant bears the key id %s", registry.ErrNotFound, keyIDs[0])
		}
		return err
	}()
	return op.fail(op.outcome(ctx, Event{Reason: fmt.Sprintf("key ids %v revoked", keyIDs)}, err))
}

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

// replace puts one document in the place of others.
func (w *grantWriter) replace(ctx context.Context, add []encrypt.Stanza, old []*grantRecord, signer provenance.Signer) (ocispec.Descriptor, error) {
	entries := slices.Clone(add)
	added := make(map[[2]string]bool)
	for _, s := range add {
		if s.Scope == encrypt.ScopeArtifact {
			added[[2]string{s.Type, s.KeyID}] = true
		}
	}
	// Two entries with one key id are both kept, unless we just made one of them
	// ourselves: which of the others is junk that somebody planted, only the
	// recipient can tell. A grant of some files takes the place of nothing, and
	// stays until it is dropped by its key id.
	has := make(map[[3]string]bool)
	var replaced []*grantRecord
	for _, r := range old {
		if len(entries)+len(r.doc.Recipients) > maxGrantEntries && !w.affected(r) {
			continue // it stays a document of its own
		}
		replaced = append(replaced, r)
		for _, s := range r.doc.Recipients {
			id := [3]string{s.Type, s.KeyID, string(s.Body)}
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
	var d ocispec.Descriptor
	if len(entries) > 0 {
		var err error
		if d, err = pushGrant(ctx, w.store, w.desc, w.binding, entries, signer); err != nil {
			return d, err
		}
		if err := readBack(ctx, w.store, w.desc, []ocispec.Descriptor{d}); err != nil {
			return d, err
		}
	}
	for _, r := range replaced {
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
