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
	return wrap(ctx, key.dek, b.normal(ScopeArtifact), nil, recipients)
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
func wrap(ctx context.Context, key *secret, b Binding, sealed []byte, recipients []Recipient) ([]Stanza, error) {
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
func wrapOne(ctx context.Context, key *secret, b Binding, r Recipient) (s Stanza, err error) {
	for round := 0; ; round++ {
		// Bytes of its own, so that one that keeps or scribbles on them harms
		// no other.
		payload := make([]byte, payloadSize)
		err = key.use(func(key []byte) error { return b.fill(payload, key) })
		if err == nil {
			err = timed(ctx, r, func(ctx context.Context) (err error) {
				s, err = r.Wrap(ctx, payload, b)
				return err
			})
		}
		clear(payload)
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
// for [Unwrap]. Where nothing opens, the error is a [*NoKeyError]. A cancelled
// ctx is returned as such.
func UnwrapKey(ctx context.Context, entries []Stanza, b Binding, now time.Time, identities ...Identity) (*Key, error) {
	var key *Key
	u := newUnwrapping(entries, b, now, identities)
	u.files = nil
	err := u.run(ctx, func(k PartKeys, _ Stanza) bool {
		key = k.(*Key)
		return true
	})
	return key, err
}

// Unwrap is [UnwrapKey] for readers whom a part of the artifact may do. An
// identity is offered entries of [ScopeArtifact], and after them those of
// [ScopeFiles]. take gets the [*Key] or [*FileKeys] of every entry that opens,
// which it must close, and the entry, and says whether that is enough; until it
// does, further entries are tried. The bounds and the errors are those of
// UnwrapKey: a [*NoKeyError] where nothing that opened was enough.
//
// The file list of a [*FileKeys] is the granter's word, as whoever holds the data
// key can write one: offer entries of ScopeFiles only from grants whose
// signature was verified (FORMAT.md §8.6).
func Unwrap(ctx context.Context, entries []Stanza, b Binding, now time.Time, take func(PartKeys, Stanza) (enough bool), identities ...Identity) error {
	return newUnwrapping(entries, b, now, identities).run(ctx, take)
}

// unwrapping is the work of one Unwrap.
type unwrapping struct {
	b               Binding
	now             time.Time
	identities      []Identity
	artifact, files []Stanza
	calls           []int // of every identity, in all rounds
	none            *NoKeyError
}

func newUnwrapping(entries []Stanza, b Binding, now time.Time, identities []Identity) *unwrapping {
	u := &unwrapping{b: b.normal(ScopeArtifact), now: now, identities: identities, calls: make([]int, len(identities)),
		none: &NoKeyError{Types: make(map[string]int), Identities: len(identities)}}
	for _, s := range entries {
		u.none.Stanzas++
		u.none.Types[s.Type]++
		if s.Scope == ScopeFiles {
			u.files = append(u.files, s)
		} else {
			u.artifact = append(u.artifact, s)
		}
	}
	return u
}

// offers lists what every identity may open.
func (u *unwrapping) offers() [][]Stanza {
	all := slices.Concat(u.artifact, u.files)
	byID := make(map[string][]Stanza)
	for _, s := range all {
		byID[s.KeyID] = append(byID[s.KeyID], s)
	}
	out := make([][]Stanza, len(u.identities))
	for i, id := range u.identities {
		out[i] = all
		if k, ok := id.(Keyed); ok {
			out[i] = byID[k.KeyID(u.b)]
		}
	}
	return out
}

// run asks all identities in turn, and then again those that failed for now.
func (u *unwrapping) run(ctx context.Context, take func(PartKeys, Stanza) bool) error {
	if _, err := u.b.bound(); err != nil {
		return err
	}
	pending := u.offers()
	for round := 0; ; round++ {
		again := false
		for i := range u.identities {
			enough := false
			pending[i], enough = u.ask(ctx, i, pending[i], take)
			if enough {
				return nil
			}
			again = again || len(pending[i]) > 0
		}
		err := ctx.Err()
		if err == nil && again && round < len(pauses) {
			err = pause(ctx, round)
		} else if err == nil {
			return u.none
		}
		if err != nil {
			return fmt.Errorf("encrypt: unwrap: %w", err)
		}
	}
}

// ask offers stanzas to identity i until take has enough. It returns those that
// are worth another round: a service that is down or overloaded costs one call,
// and then it is the turn of the next identity.
func (u *unwrapping) ask(ctx context.Context, i int, stanzas []Stanza, take func(PartKeys, Stanza) bool) (rest []Stanza, enough bool) {
	id := u.identities[i]
	refused := make(map[string]bool) // key ids
	for at, s := range stanzas {
		switch {
		case ctx.Err() != nil:
			return nil, false
		case refused[s.KeyID]:
			continue
		case u.calls[i] == maxCalls && CallsOut(id):
			u.none.Errs = append(u.none.Errs, fmt.Errorf("encrypt: identity %d: asked %d times, not asked again", i+1, maxCalls))
			return nil, false
		}
		keys, err := u.open(ctx, id, s)
		if errors.Is(err, ErrNotMine) {
			continue
		}
		u.calls[i]++
		if err == nil {
			if take(keys, s) {
				return nil, true
			}
			continue
		}
		u.none.Errs = append(u.none.Errs, fmt.Errorf("encrypt: identity %d, %s stanza: %w", i+1, s.Type, err))
		if forNow(err) {
			return stanzas[at:], false
		}
		refused[s.KeyID] = forGood(err)
	}
	return nil, false
}

// open unwraps one entry and checks what was in it.
func (u *unwrapping) open(ctx context.Context, id Identity, s Stanza) (keys PartKeys, err error) {
	b := u.b.For(s)
	var payload []byte
	defer func() { clear(payload) }()
	err = timed(ctx, id, func(ctx context.Context) (err error) {
		payload, err = id.Unwrap(ctx, s, b)
		return err
	})
	if err != nil {
		return nil, err
	}
	guard(func() {
		var key []byte
		if key, err = b.open(payload, u.now); err != nil {
			return
		}
		if s.Scope == ScopeFiles {
			keys, err = openFiles(key, s, b)
		} else {
			keys, err = openKey(key, b)
		}
	})
	return keys, err
}

// openKey returns the data key if it is the committed one.
func openKey(dek []byte, b Binding) (PartKeys, error) {
	k := keyFrom(dek)
	if err := k.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
		k.Close()
		return nil, err
	}
	return k, nil
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
