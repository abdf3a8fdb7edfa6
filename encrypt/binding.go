// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"
)

// A Binding says what a wrapped key is for. It travels inside the wrapped bytes
// and, where the mechanism takes associated data, beside them (FORMAT.md §8.2).
type Binding struct {
	// ArtifactID and Commitment are those of the index header (FORMAT.md §6).
	ArtifactID [16]byte
	Commitment [32]byte
	// Manifest is the SHA-256 of the model manifest that the reader opened or
	// the writer pushed: computed from its bytes, never taken from a grant.
	Manifest digest.Digest
	// Scope is what the key opens. Empty means [ScopeArtifact].
	Scope Scope
	// NotAfter is when honest readers stop, UTC; fractions of a second are
	// dropped. Zero: never.
	NotAfter time.Time
}

const (
	payloadSize = 128
	// boundSize is the part of the payload before the key.
	boundSize = 96
)

// For returns b with the scope and expiry of s.
func (b Binding) For(s Stanza) Binding {
	b.Scope, b.NotAfter = s.Scope, s.NotAfter
	return b
}

// Context returns the bytes that bind a wrapped key to its artifact where a
// mechanism takes associated data: the label and bytes 4 to 96 of the payload
// (FORMAT.md §8.2). It panics where [WrapKey] and [UnwrapKey] would have
// refused b.
func (b Binding) Context() []byte {
	bound, err := b.bound()
	if err != nil {
		panic(err.Error())
	}
	return append([]byte("modelsec/v1/grant\x00"), bound[4:]...)
}

// KeyID returns the id that a stanza of the given type bears when it is for the
// holder of the given public key, or of a key service's resource name in its
// place (FORMAT.md §8.3). Without the public key nobody can tell that two
// artifacts are for the same recipient.
func (b Binding) KeyID(stanzaType string, public []byte) string {
	h := sha256.New()
	h.Write([]byte("modelsec/v1/recipient\x00"))
	h.Write([]byte(stanzaType))
	h.Write([]byte{0})
	h.Write(public)
	mac := hmac.New(sha256.New, b.ArtifactID[:])
	mac.Write(h.Sum(nil))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// bound encodes bytes 0 to 96 of the payload.
func (b Binding) bound() (p [boundSize]byte, err error) {
	copy(p[:], "MSG1")
	switch b.Scope {
	case "", ScopeArtifact:
	case ScopeFiles:
		p[4] = 1
	default:
		return p, fmt.Errorf("encrypt: scope %q; known are %s and %s", b.Scope, ScopeArtifact, ScopeFiles)
	}
	if !b.NotAfter.IsZero() {
		seconds := b.NotAfter.Unix()
		if seconds <= 0 || seconds > maxNotAfter {
			return p, fmt.Errorf("encrypt: expiry %s is outside the years 1970 to 9999", b.NotAfter.UTC().Format(time.RFC3339))
		}
		binary.BigEndian.PutUint64(p[8:], uint64(seconds))
	}
	copy(p[16:], b.ArtifactID[:])
	if b.Manifest.Validate() != nil || b.Manifest.Algorithm() != digest.SHA256 {
		return p, fmt.Errorf("encrypt: manifest %q is not a sha256 digest", string(b.Manifest))
	}
	if _, err := hex.Decode(p[32:64], []byte(b.Manifest.Encoded())); err != nil {
		panic("encrypt: valid digest without hex digits: " + err.Error())
	}
	copy(p[64:], b.Commitment[:])
	return p, nil
}

// maxNotAfter is the last second that RFC 3339 can write.
var maxNotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()

// fill builds the bytes that every recipient wraps, in memory that the caller
// wipes.
func (b Binding) fill(payload, key []byte) error {
	if len(key) != payloadSize-boundSize {
		panic(fmt.Sprintf("encrypt: a payload holds 32 key bytes, not %d", len(key)))
	}
	bound, err := b.bound()
	if err != nil {
		return err
	}
	copy(payload[copy(payload, bound[:]):], key)
	return nil
}

// open checks unwrapped bytes against b and now and returns the key in them,
// which aliases payload.
func (b Binding) open(payload []byte, now time.Time) ([]byte, error) {
	bound, err := b.bound()
	if err != nil {
		return nil, err
	}
	if len(payload) != payloadSize || !bytes.HasPrefix(payload, bound[:4]) {
		return nil, fmt.Errorf("%w: not the wrapped bytes of a grant", ErrKeyMismatch)
	}
	if subtle.ConstantTimeCompare(payload[:boundSize], bound[:]) != 1 {
		return nil, fmt.Errorf("%w: %s", ErrKeyMismatch, b.difference(payload))
	}
	if b.expired(now) {
		return nil, fmt.Errorf("%w: not after %s", ErrExpired, b.NotAfter.UTC().Format(time.RFC3339))
	}
	return payload[boundSize:], nil
}

// expired compares whole seconds, as the payload holds them.
func (b Binding) expired(now time.Time) bool {
	return !b.NotAfter.IsZero() && now.Unix() > b.NotAfter.Unix()
}

// difference names the first field of a payload that is not b's. The fields
// are public: all of them stand in the manifest or in the grant.
func (b Binding) difference(payload []byte) string {
	bound, _ := b.bound()
	for _, f := range []struct {
		name     string
		from, to int
	}{
		{"another scope", 4, 5}, {"reserved bytes", 5, 8}, {"another expiry", 8, 16},
		{"another artifact", 16, 32}, {"another manifest", 32, 64}, {"another commitment", 64, 96},
	} {
		if !bytes.Equal(payload[f.from:f.to], bound[f.from:f.to]) {
			return "wrapped with " + f.name
		}
	}
	panic("encrypt: equal payloads differ")
}
