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

// wrapOne asks a recipient, again where it fails for now: the others cannot
// stand in for it as they can when a key is unwrapped.
func wrapOne(ctx context.Context, key []byte, b Binding, r Recipient) (s Stanza, err error) {
	for round := 0; ; round++ {
		err = timed(ctx, r, func(ctx context.Context) (err error) {
			// Bytes of its own, so that one that keeps or scribbles on them
			// harms no other.
			payload, err := b.payload(key)
			if err != nil {
				return err
			}
			defer clear(payload)
			s, err = r.Wrap(ctx, payload, b)
			return err
		})
		if !forNow(err) || round == len(pauses) {
			return s, err
		}
		if err := pause(ctx, round); err != nil {
			return s, err
		}
	}
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
// more grants. Identities are tried in the order given, and each call ends
// after 10 seconds (see [Timed]). An identity that fails falls through to the
// next stanza and the next identity. One that is [ErrDenied] or [ErrDisabled]
// is not asked about that key id again. One that is [ErrUnavailable] or
// [ErrThrottled] is asked again after all others failed too, twice more at most.
//
// A [Keyed] identity is offered only the stanzas that bear its key id. One that
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
	pending := make([][]Stanza, len(identities))
	calls := make([]int, len(identities))
	for i, id := range identities {
		pending[i] = offered
		if k, ok := id.(Keyed); ok {
			pending[i] = byID[k.KeyID(b)]
		}
	}
	for round := 0; ; round++ {
		var again bool
		for i, id := range identities {
			a := &attempt{number: i + 1, id: id, calls: &calls[i], none: none}
			rest, err := a.try(ctx, pending[i], b, now, use)
			if a.opened || err != nil {
				return err
			}
			pending[i] = rest
			again = again || len(rest) > 0
		}
		err := ctx.Err()
		if err == nil && again && round < len(pauses) {
			err = pause(ctx, round)
		} else if err == nil {
			return none
		}
		if err != nil {
			return fmt.Errorf("encrypt: unwrap: %w", err)
		}
	}
}

// attempt is one identity in one round of unwrap.
type attempt struct {
	number int
	id     Identity
	calls  *int // of all rounds
	none   *NoKeyError
	opened bool
}

// try offers stanzas to the identity until use accepts one. It returns those
// that are worth another round: a service that is down or overloaded costs one
// call, and then it is the turn of the next identity.
func (a *attempt) try(ctx context.Context, stanzas []Stanza, b Binding, now time.Time, use func(key []byte, s Stanza) error) (rest []Stanza, err error) {
	refused := make(map[string]bool) // key ids
	for i, s := range stanzas {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("encrypt: unwrap: %w", err)
		}
		if refused[s.KeyID] {
			continue
		}
		if *a.calls == maxCalls && CallsOut(a.id) {
			a.none.Errs = append(a.none.Errs, fmt.Errorf("encrypt: identity %d: asked %d times, not asked again", a.number, maxCalls))
			return nil, nil
		}
		err := unwrapOne(ctx, a.id, s, b.For(s), now, use)
		switch {
		case err == nil:
			a.opened = true
			return nil, nil
		case errors.Is(err, ErrNotMine):
			continue
		case ctx.Err() != nil:
			return nil, fmt.Errorf("encrypt: unwrap: %w", ctx.Err())
		}
		*a.calls++
		a.none.Errs = append(a.none.Errs, fmt.Errorf("encrypt: identity %d, %s stanza: %w", a.number, s.Type, err))
		if forNow(err) {
			return stanzas[i:], nil
		}
		refused[s.KeyID] = forGood(err)
	}
	return nil, nil
}

func unwrapOne(ctx context.Context, id Identity, s Stanza, b Binding, now time.Time, use func(key []byte, s Stanza) error) error {
	var payload []byte
	defer func() { clear(payload) }()
	err := timed(ctx, id, func(ctx context.Context) (err error) {
		payload, err = id.Unwrap(ctx, s, b)
		return err
	})
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

// Temporary reports whether a key service failed for now, so that the same call
// may succeed later.
func (e *NoKeyError) Temporary() bool { return slices.ContainsFunc(e.Errs, forNow) }

// Unwrap returns ErrNoKey and Errs.
func (e *NoKeyError) Unwrap() []error { return append([]error{ErrNoKey}, e.Errs...) }
