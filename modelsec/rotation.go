// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
)

// rotation is the work of [Client.Rotate] on one version.
type rotation struct {
	*RotateOptions
	binding encrypt.Binding
	keyID   string         // of Old in this artifact
	old     []*grantRecord // documents with entries of Old
}

func (c *Client) rotateOne(ctx context.Context, ref string, v Version, p provenance.Policy, o *RotateOptions) Rotated {
	op := c.begin("rotate", ref)
	out := Rotated{Version: v}
	if err := c.rotateVersion(ctx, op, p, &rotation{RotateOptions: o}, &out); err != nil {
		out.Outcome, out.Err = OutcomeFailed, op.fail(err)
	}
	return out
}

func (c *Client) rotateVersion(ctx context.Context, op *operation, p provenance.Policy, r *rotation, out *Rotated) error {
	_, store, err := c.openWrite(ctx, op)
	if err != nil {
		return err
	}
	desc, err := store.Resolve(ctx, string(out.Digest))
	if err != nil {
		return err
	}
	if desc.MediaType != ocispec.MediaTypeImageManifest {
		out.Outcome = OutcomeNotEncrypted
		return nil
	}
	a, err := c.resolve(ctx, op)
	if err != nil {
		return err
	}
	if !a.encryptedModel() {
		out.Outcome = OutcomeNotEncrypted
		return nil
	}
	if err := r.look(ctx, a); err != nil {
		return err
	}
	// Without an entry of Old no key is needed: what is done costs nothing.
	if len(r.old) == 0 {
		out.Outcome = OutcomeAbsent
		return nil
	}
	m, err := a.open(ctx, p, nil)
	if err != nil {
		return err
	}
	defer m.Close()
	if err := m.checkClass(r.New, r.AllowClassical); err != nil {
		return err
	}
	stanzas, err := r.rewrap(ctx, m)
	if err != nil {
		return err
	}
	if len(stanzas) == 0 {
		out.Outcome = OutcomeExpired
		return nil
	}
	w := &grantWriter{artifact: a, store: store, binding: r.binding, signer: r.Signer, drop: []string{r.keyID}}
	d, err := w.rewrite(ctx, stanzas)
	if err = op.outcome(ctx, Event{Reason: fmt.Sprintf("key id %s replaced by %d recipients", r.keyID, len(r.New)), KeyID: r.keyID}, err); err != nil {
		return err
	}
	out.Outcome, out.Document = OutcomeReplaced, d.Digest
	return nil
}

// look finds the documents that list Old.
func (r *rotation) look(ctx context.Context, a *artifact) (err error) {
	if r.binding, err = a.grantBinding(ctx); err != nil {
		return err
	}
	r.keyID = r.Old.KeyID(r.binding)
	return a.allGrants(ctx, r.binding, func(g *grantRecord) {
		if slices.ContainsFunc(g.doc.Recipients, r.of) {
			r.old = append(r.old, g)
		}
	})
}

// of reports whether an entry is one of Old.
func (r *rotation) of(s encrypt.Stanza) bool { return s.KeyID == r.keyID }

// rewrap makes entries for New that give what the entries of Old give. What an
// entry says of itself is believed if a grant signer signed it or if it is the
// one that opened the artifact: else whoever can write to the registry could
// plant one that has more files, or more time, for a key that is his.
func (r *rotation) rewrap(ctx context.Context, m *Model) ([]encrypt.Stanza, error) {
	var whole, files []encrypt.Stanza
	believed := false
	for _, g := range r.old {
		vouched := m.signedGrant(ctx, g)
		for _, s := range slices.DeleteFunc(slices.Clone(g.doc.Recipients), func(s encrypt.Stanza) bool { return !r.of(s) }) {
			// Not its copy with another expiry, which opens nothing.
			opened := s.Scope == encrypt.ScopeArtifact && bytes.Equal(s.Body, m.entry.Body) && s.NotAfter.Equal(m.entry.NotAfter)
			if !vouched && !opened {
				continue
			}
			believed = true
			switch {
			case !s.NotAfter.IsZero() && s.NotAfter.Before(m.c.now().Truncate(time.Second)):
			case ofFiles(s):
				files = append(files, s)
			default:
				whole = append(whole, s)
			}
		}
	}
	if !believed {
		return nil, fmt.Errorf("%w: %d documents list the old key, none signed by a grant signer of the policy, and another key opened the artifact: what the old one may open is anybody's word", ErrConfig, len(r.old))
	}
	if len(files) > 0 && r.Signer == nil {
		return nil, fmt.Errorf("%w: the old key has a grant of some files, which must be signed; give a Signer", ErrConfig)
	}
	var out []encrypt.Stanza
	if len(whole) > 0 {
		added, err := encrypt.WrapKey(ctx, m.key, r.until(latest(whole)), r.New...)
		if err != nil {
			return nil, err
		}
		out = added
	}
	for _, s := range files {
		names, err := m.filesOf(ctx, r.binding, s)
		if err != nil {
			return nil, err
		}
		list, layers, err := m.content.fileScope(names)
		if err != nil {
			return nil, err
		}
		added, err := encrypt.WrapFiles(ctx, m.key, r.until(s.NotAfter), list, layers, r.New...)
		if err != nil {
			return nil, err
		}
		out = append(out, added...)
	}
	return out, nil
}

// until is the binding of an entry that takes the place of one with an expiry.
func (r *rotation) until(notAfter time.Time) encrypt.Binding {
	b := r.binding
	if b.NotAfter = r.NotAfter; b.NotAfter.IsZero() {
		b.NotAfter = notAfter
	}
	return b
}

// latest is the last expiry of entries for the same; zero: never.
func latest(entries []encrypt.Stanza) (out time.Time) {
	for _, s := range entries {
		if s.NotAfter.IsZero() {
			return s.NotAfter
		}
		if s.NotAfter.After(out) {
			out = s.NotAfter
		}
	}
	return out
}

// filesOf opens an entry for some files and returns their names. They are
// sealed for its recipient: no other key of the client shows them.
func (m *Model) filesOf(ctx context.Context, b encrypt.Binding, s encrypt.Stanza) (names []string, err error) {
	var list json.RawMessage
	err = encrypt.Unwrap(ctx, []encrypt.Stanza{s}, b, m.c.now(), func(k encrypt.PartKeys, _ encrypt.Stanza) bool {
		defer k.Close()
		list = k.(*encrypt.FileKeys).Files()
		return true
	}, m.c.Identities...)
	if err != nil {
		return nil, fmt.Errorf("the old key has a grant of some files, and only it can say which: %w", err)
	}
	var files []index.File
	if files, err = m.content.index.ParseFiles(list); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	for _, f := range files {
		names = append(names, f.Path)
	}
	return names, nil
}
