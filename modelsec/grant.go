// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
)

// maxGrantEntries is how many recipients one grant document takes, and
// maxGrantBytes how much of all documents is held to list or rewrite them: room
// for 20,000 recipients. Only a flood has more, and memory must not follow it.
const (
	maxGrantEntries = 1000
	maxGrantBytes   = 32 << 20
)

// GrantOptions say how a grant is made. Nil: without expiry, unsigned.
type GrantOptions struct {
	// NotAfter is when readers that follow the rules stop using the grant.
	// Whoever has opened the artifact before keeps what he has. Zero: never.
	NotAfter time.Time

	// Signer signs the grant document. Key services are only asked about
	// entries of documents that a grant signer of the policy signed, and
	// nobody takes grants of some files from others.
	Signer provenance.Signer

	// Files are the exact paths of the files that are granted; the recipients
	// open them with [Client.OpenFiles] and learn no other name. A file that
	// shares a layer with files not granted is an error, and so is a missing
	// Signer. Empty: the whole artifact.
	Files []string

	// Replaces are key ids that are dropped in the same step.
	Replaces []string

	// AllowClassical is the reason for which recipients weaker than the
	// publisher asked for are accepted.
	AllowClassical string
}

// Grant gives further recipients access to an encrypted artifact. The client
// must be able to open it under the policy. No layer, manifest or
// attestation changes: one document of a few KB is pushed, into which the
// grants found are merged, up to 1,000 recipients.
func (c *Client) Grant(ctx context.Context, ref string, p provenance.Policy, to []encrypt.Recipient, o *GrantOptions) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("grant", ref)
	if o == nil {
		o = &GrantOptions{}
	}
	d, err := c.grant(ctx, op, p, to, o)
	return d, op.fail(err)
}

func (c *Client) grant(ctx context.Context, op *operation, p provenance.Policy, to []encrypt.Recipient, o *GrantOptions) (ocispec.Descriptor, error) {
	_, store, err := c.openWrite(ctx, op)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if len(o.Files) > 0 && o.Signer == nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: readers take a grant of some files only if it is signed; give a Signer", ErrConfig)
	}
	m, err := c.open(ctx, op, p, nil)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer m.Close()
	if m.key == nil {
		return ocispec.Descriptor{}, fmt.Errorf("%w: the artifact is not encrypted", ErrConfig)
	}
	if err := m.checkClass(to, o.AllowClassical); err != nil {
		return ocispec.Descriptor{}, err
	}
	b, err := bindingOf(m.content.index, m.desc.Digest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	stanzas, err := m.wrap(ctx, b, to, o)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	w := &grantWriter{artifact: m.artifact, store: store, binding: b, signer: o.Signer, drop: o.Replaces}
	d, err := w.rewrite(ctx, stanzas)
	return d, op.outcome(ctx, Event{Reason: fmt.Sprintf("%d recipients added, %d key ids replaced", len(to), len(o.Replaces))}, err)
}

// checkClass is K30.
func (m *Model) checkClass(to []encrypt.Recipient, allowClassical string) error {
	least := encrypt.Classical
	if m.content.index.Encryption.MinWrapClass == encrypt.PostQuantum.String() && allowClassical == "" {
		least = encrypt.PostQuantum
	}
	if err := encrypt.CheckClass(least, to...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// wrap makes the entries of a grant.
func (m *Model) wrap(ctx context.Context, b encrypt.Binding, to []encrypt.Recipient, o *GrantOptions) ([]encrypt.Stanza, error) {
	b.NotAfter = o.NotAfter
	if len(o.Files) == 0 {
		return encrypt.WrapKey(ctx, m.key, b, to...)
	}
	files, layers, err := m.content.fileScope(o.Files)
	if err != nil {
		return nil, err
	}
	return encrypt.WrapFiles(ctx, m.key, b, files, layers, to...)
}

// GrantEntry is one recipient of an artifact, as the registry lists it: a
// statement of who could open it.
type GrantEntry struct {
	KeyID    string
	Type     string
	Scope    string    // "artifact" or "files"
	NotAfter time.Time // Zero: never.
	Signed   bool      // The document bears a signature, good or not.
	Document ocispec.Descriptor

	// Recipient and Vouched are set by [Client.Review]: the name that its
	// options have for the key, and whether a grant signer of its policy signed
	// the document.
	Recipient string
	Vouched   bool
}

func newGrantEntry(r *grantRecord, s encrypt.Stanza) GrantEntry {
	return GrantEntry{KeyID: s.KeyID, Type: s.Type, Scope: string(s.Scope), NotAfter: s.NotAfter, Signed: r.bundle != nil, Document: r.desc}
}

// Grants lists the recipients of an artifact. None of it is verified; Review is
// for a whole repository.
func (c *Client) Grants(ctx context.Context, ref string) ([]GrantEntry, error) {
	c.init()
	op := c.begin("grants", ref)
	a, err := c.resolve(ctx, op)
	if err != nil {
		return nil, op.fail(err)
	}
	b, err := a.grantBinding(ctx)
	if err != nil {
		return nil, op.fail(err)
	}
	var out []GrantEntry
	err = a.allGrants(ctx, b, func(r *grantRecord) {
		for _, s := range r.doc.Recipients {
			out = append(out, newGrantEntry(r, s))
		}
	})
	return out, op.fail(err)
}

// grantBinding reads the index for what grants are bound to, and the listing.
func (a *artifact) grantBinding(ctx context.Context) (encrypt.Binding, error) {
	t, err := a.content(ctx)
	if err != nil {
		return encrypt.Binding{}, err
	}
	defer t.release()
	if t.index.Profile != index.Encrypted {
		return encrypt.Binding{}, fmt.Errorf("%w: the artifact is not encrypted", ErrConfig)
	}
	if a.referrers, err = listReferrers(ctx, a.store, a.desc); err != nil {
		return encrypt.Binding{}, err
	}
	return bindingOf(t.index, a.desc.Digest)
}
