// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"crypto/ecdh"
	"crypto/hpke"
	"fmt"
	"io"
	"log/slog"
)

// The types of HPKE recipients (FORMAT.md §8.4).
const (
	TypeMLKEM768X25519 = "hpke-mlkem768-x25519"
	TypeMLKEM768P256   = "hpke-mlkem768-p256"
	TypeMLKEM1024P384  = "hpke-mlkem1024-p384"
	TypeP256           = "hpke-p256"

	// DefaultType is post-quantum and works in strict FIPS 140-3 mode.
	DefaultType = TypeMLKEM768X25519
)

// suite is one row of FORMAT.md §8.4.
type suite struct {
	kem   hpke.KEM
	kdf   hpke.KDF
	class WrapClass
	enc   int // bytes of the encapsulated key
}

func suiteOf(stanzaType string) (suite, error) {
	switch stanzaType {
	case TypeMLKEM768X25519:
		return suite{hpke.MLKEM768X25519(), hpke.HKDFSHA256(), PostQuantum, 1120}, nil
	case TypeMLKEM768P256:
		return suite{hpke.MLKEM768P256(), hpke.HKDFSHA256(), PostQuantum, 1153}, nil
	case TypeMLKEM1024P384:
		return suite{hpke.MLKEM1024P384(), hpke.HKDFSHA384(), PostQuantum, 1665}, nil
	case TypeP256:
		return suite{hpke.DHKEM(ecdh.P256()), hpke.HKDFSHA256(), Classical, 65}, nil
	}
	return suite{}, fmt.Errorf("encrypt: key type %q; known are %s, %s, %s and %s", stanzaType, TypeMLKEM768X25519, TypeMLKEM768P256, TypeMLKEM1024P384, TypeP256)
}

// An HPKERecipient is a public key that wraps keys by RFC 9180. It implements
// [Recipient], [Keyed] and [Classed].
type HPKERecipient struct {
	stanzaType string
	suite      suite
	key        hpke.PublicKey
}

// Type returns the stanza type of the key.
func (r *HPKERecipient) Type() string { return r.stanzaType }

// Bytes returns the public key, which [Binding.KeyID] takes.
func (r *HPKERecipient) Bytes() []byte { return r.key.Bytes() }

// Class returns the wrap class of the key's type.
func (r *HPKERecipient) Class() WrapClass { return r.suite.class }

// KeyID returns the id of the key in the artifact of b.
func (r *HPKERecipient) KeyID(b Binding) string { return b.KeyID(r.stanzaType, r.key.Bytes()) }

// Wrap implements [Recipient].
func (r *HPKERecipient) Wrap(ctx context.Context, key []byte, b Binding) (Stanza, error) {
	if err := ctx.Err(); err != nil {
		return Stanza{}, err
	}
	body, err := hpke.Seal(r.key, r.suite.kdf, hpke.AES256GCM(), b.Context(), key)
	if err != nil {
		return Stanza{}, fmt.Errorf("encrypt: wrap for %s: %w", r.stanzaType, err)
	}
	return Stanza{Type: r.stanzaType, KeyID: r.KeyID(b), Body: body}, nil
}

// An HPKEIdentity is a private key that unwraps what its [HPKERecipient]
// wrapped. It implements [Identity] and [Keyed], does no I/O and formats as a
// fixed text. The key is ordinary memory, held by crypto/hpke.
type HPKEIdentity struct {
	recipient *HPKERecipient
	key       hpke.PrivateKey
}

// GenerateIdentity returns a new key pair of the given type. The empty type is
// [DefaultType].
func GenerateIdentity(stanzaType string) (*HPKEIdentity, error) {
	if stanzaType == "" {
		stanzaType = DefaultType
	}
	s, err := suiteOf(stanzaType)
	if err != nil {
		return nil, err
	}
	key, err := s.kem.GenerateKey()
	if err != nil {
		return nil, fmt.Errorf("encrypt: generate %s: %w", stanzaType, err)
	}
	return newIdentity(stanzaType, s, key), nil
}

func newIdentity(stanzaType string, s suite, key hpke.PrivateKey) *HPKEIdentity {
	return &HPKEIdentity{&HPKERecipient{stanzaType, s, key.PublicKey()}, key}
}

// Recipient returns the public half.
func (i *HPKEIdentity) Recipient() *HPKERecipient { return i.recipient }

// KeyID returns the id of the key in the artifact of b.
func (i *HPKEIdentity) KeyID(b Binding) string { return i.recipient.KeyID(b) }

// Unwrap implements [Identity]. A body of another length than the type has, and
// one that does not authenticate, is [ErrDecrypt].
func (i *HPKEIdentity) Unwrap(ctx context.Context, s Stanza, b Binding) ([]byte, error) {
	r := i.recipient
	if s.Type != r.stanzaType || s.KeyID != r.KeyID(b) {
		return nil, ErrNotMine
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(s.Params) != 0 || len(s.Body) != r.suite.enc+payloadSize+gcmTag {
		return nil, fmt.Errorf("%s stanza: %w", s.Type, ErrDecrypt)
	}
	out, err := hpke.Open(i.key, r.suite.kdf, hpke.AES256GCM(), b.Context(), s.Body)
	if err != nil {
		return nil, fmt.Errorf("%s stanza: %w", s.Type, ErrDecrypt)
	}
	return out, nil
}

// gcmTag is the tag of the AEAD of every suite.
const gcmTag = 16

// String returns a fixed text.
func (i *HPKEIdentity) String() string { return redacted }

// GoString returns a fixed text.
func (i *HPKEIdentity) GoString() string { return redacted }

// Format writes a fixed text for every verb.
func (i *HPKEIdentity) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalJSON returns a fixed text.
func (i *HPKEIdentity) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns a fixed text.
func (i *HPKEIdentity) LogValue() slog.Value { return slog.StringValue(redacted) }
