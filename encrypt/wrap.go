// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// maxCalls is how often one identity that calls out may be asked in one
// UnwrapKey (FORMAT.md §8.5): a flood of entries must not become a flood of
// requests to somebody's key service.
const maxCalls = 4

// WrapKey wraps key for each of the recipients, with the scope
// [ScopeArtifact] and the expiry of b. It returns [ErrKeyMismatch] if key is not
// the one b commits to. It returns no stanza unless all recipients have one.
func WrapKey(ctx context.Context, key *Key, b Binding, recipients ...Recipient) ([]Stanza, error) {
	if err := key.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
		return nil, err
	}
	if b.Scope != "" && b.Scope != ScopeArtifact {
		return nil, fmt.Errorf("encrypt: WrapKey grants the whole artifact; scope %s is for WrapFiles", b.Scope)
	}
	var stanzas []Stanza
	err := key.dek.use(func(dek []byte) (err error) {
		stanzas, err = wrap(ctx, dek, b.normal(ScopeArtifact), nil, recipients)
		return err
	})
	return stanzas, err
}

// normal returns b as a stanza can express it.
func (b Binding) normal(s Scope) Binding {
	b.Scope = s
	if !b.NotAfter.IsZero() {
		b.NotAfter = b.NotAfter.UTC().Truncate(time.Second)
	}
	return b
}

// wrap wraps 32 bytes for each of the recipients.
func wrap(ctx context.Context, key []byte, b Binding, sealed []byte, recipients []Recipient) ([]Stanza, error) {
	if len(recipients) == 0 {
		return nil, errors.New("encrypt: no recipients: nobody could open the artifact")
	}
	stanzas := make([]Stanza, 0, min(len(recipients), maxRecipients))
	seen := make(map[[2]string]bool)
	for i, r := range recipients {
		s, err := wrapOne(ctx, key, b, r)
		if err != nil {
			return nil, fmt.Errorf("encrypt: recipient %d of %d: %w", i+1, len(recipients), err)
		}
		s.Scope, s.NotAfter, s.Sealed = b.Scope, b.NotAfter, sealed
		if err := s.check(); err != nil {
			return nil, fmt.Errorf("encrypt: recipient %d of %d returned a stanza that no reader takes: %w", i+1, len(recipients), err)
		}
		id := [2]string{s.Type, s.KeyID}
		if seen[id] {
			return nil, fmt.Errorf("encrypt: recipient %d of %d is in the list twice", i+1, len(recipients))
		}
		seen[id] = true
		stanzas = append(stanzas, s)
	}
	return stanzas, nil
}

// wrapOne gives every recipient bytes of its own, so that one that keeps or
// scribbles on them harms no other.
func wrapOne(ctx context.Context, key []byte, b Binding, r Recipient) (Stanza, error) {
	payload, err := b.payload(key)
	if err != nil {
		return Stanza{}, err
	}
	defer clear(payload)
	return r.Wrap(ctx, payload, b)
}

// CheckClass returns an error that names the first recipient whose class is
// weaker than least, the minWrapClass of the artifact (FORMAT.md §8.4).
func CheckClass(least WrapClass, recipients ...Recipient) error {
	for i, r := range recipients {
		if c := ClassOf(r); c < least {
			return fmt.Errorf("encrypt: recipient %d of %d wraps with a %s mechanism, the artifact demands %s", i+1, len(recipients), c, least)
		}
	}
	return nil
}

// UnwrapKey recovers the Key of the artifact of b from the entries of one or
// more grants. Identities are tried in the order given; an identity that fails,
// say by an outage, falls through to the next stanza and the next identity. A
// [Keyed] identity is offered only the stanzas that bear its key id. One that
// [CallsOut] is asked at most four times, counted over all entries, and MUST be
// offered only entries of grants whose signature the caller has verified: call
// UnwrapKey twice, with all entries and the local identities, then with the
// signed entries and the others.
//
// What an identity returns is compared with b and the clear entry, then notAfter
// with now, then the commitment (FORMAT.md §8.2). Entries of [ScopeFiles] are
// for [UnwrapFiles]. Where nothing opens, the error is a [*NoKeyError]. A
// cancelled ctx is returned as such.
func UnwrapKey(ctx context.Context, entries []Stanza, b Binding, now time.Time, identities ...Identity) (*Key, error) {
	var key *Key
	err := unwrap(ctx, entries, b.normal(ScopeArtifact), now, identities, func(dek []byte, _ Stanza) error {
		k := keyFrom(dek)
		if err := k.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
			k.Close()
			return err
		}
		key = k
		return nil
	})
	return key, err
}

// unwrap looks for an entry of b's scope whose key use accepts.
func unwrap(ctx context.Context, entries []Stanza, b Binding, now time.Time, identities []Identity, use func(key []byte, s Stanza) error) error {
	if _, err := b.bound(); err != nil {
		return err
	}
	none := &NoKeyError{Types: make(map[string]int), Identities: len(identities)}
	var offered []Stanza
	byID := make(map[string][]Stanza)
	for _, s := range entries {
		none.Stanzas++
		none.Types[s.Type]++
		if s.Scope == b.Scope {
			offered = append(offered, s)
			byID[s.KeyID] = append(byID[s.KeyID], s)
		}
	}
	for i, id := range identities {
		candidates := offered
		if k, ok := id.(Keyed); ok {
			candidates = byID[k.KeyID(b)]
		}
		calls := 0
		for _, s := range candidates {
			if err := ctx.Err(); err != nil {
				return fmt.Errorf("encrypt: unwrap: %w", err)
			}
			if calls == maxCalls && CallsOut(id) {
				none.Errs = append(none.Errs, fmt.Errorf("encrypt: identity %d: asked %d times, not asked again", i+1, maxCalls))
				break
			}
			err := unwrapOne(ctx, id, s, b.For(s), now, use)
			switch {
			case err == nil:
				return nil
			case errors.Is(err, ErrNotMine):
				continue
			}
			calls++
			none.Errs = append(none.Errs, fmt.Errorf("encrypt: identity %d, %s stanza: %w", i+1, s.Type, err))
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("encrypt: unwrap: %w", err)
	}
	return none
}

func unwrapOne(ctx context.Context, id Identity, s Stanza, b Binding, now time.Time, use func(key []byte, s Stanza) error) error {
	payload, err := id.Unwrap(ctx, s, b)
	defer clear(payload)
	if err != nil {
		return err
	}
	key, err := b.open(payload, now)
	if err != nil {
		return err
	}
	return use(key, s)
}

// A NoKeyError says what was tried when no identity opened an artifact. It is
// [ErrNoKey], and whatever the attempts returned: errors.Is finds an
// [ErrExpired] or a [context.DeadlineExceeded] in it.
type NoKeyError struct {
	// Stanzas is how many entries there were, of any type and scope.
	Stanzas int
	// Types counts them by type.
	Types map[string]int
	// Identities is how many identities were tried.
	Identities int
	// Errs holds one error for each attempt that was made and failed.
	Errs []error
}

// Error lists the types of the entries, which the author of the grant chose,
// and the attempts.
func (e *NoKeyError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v: %d identities, %d stanzas", ErrNoKey, e.Identities, e.Stanzas)
	for i, t := range slices.Sorted(maps.Keys(e.Types)) {
		if i == maxListed {
			fmt.Fprintf(&b, " and %d other types", len(e.Types)-i)
			break
		}
		fmt.Fprintf(&b, ", %d %s", e.Types[t], t)
	}
	for i, err := range e.Errs {
		if i == maxListed {
			fmt.Fprintf(&b, "; %d more", len(e.Errs)-i)
			break
		}
		fmt.Fprintf(&b, "; %v", err)
	}
	return b.String()
}

// maxListed keeps a message readable whatever a grant holds.
const maxListed = 8

// Unwrap returns ErrNoKey and Errs.
func (e *NoKeyError) Unwrap() []error { return append([]error{ErrNoKey}, e.Errs...) }
