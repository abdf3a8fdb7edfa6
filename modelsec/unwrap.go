// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/modelsec/modelsec-go/encrypt"
)

// unwrapper looks through the grants of an artifact for keys.
type unwrapper struct {
	*artifact
	binding       encrypt.Binding
	ring          *keyring
	local, remote []encrypt.Identity
	mine          map[string]bool // key ids of our identities

	signed  []encrypt.Stanza // of documents that a grant signer signed
	seen    int              // entries
	partial int              // entries for us that open some files
	failed  error
}

// unwrap hands the keys that the grants hold to ring until it has enough. Local
// identities see every entry for the whole artifact. Those that call out, and
// everybody where an entry is for some files, see what a grant signer of the
// policy signed. K14.
func (a *artifact) unwrap(ctx context.Context, b encrypt.Binding, ring *keyring) error {
	u := &unwrapper{artifact: a, binding: b, ring: ring, mine: make(map[string]bool)}
	for _, id := range a.c.Identities {
		if encrypt.CallsOut(id) {
			u.remote = append(u.remote, id)
		} else {
			u.local = append(u.local, id)
		}
		if k, ok := id.(encrypt.Keyed); ok {
			u.mine[k.KeyID(b)] = true
		}
	}
	done := false
	err := a.grants(ctx, b, func(batch []*grantRecord) bool {
		var entries []encrypt.Stanza
		for _, r := range batch {
			entries = append(entries, u.entries(ctx, r)...)
		}
		done = u.try(ctx, entries, u.local)
		return done
	})
	switch {
	case done || u.try(ctx, u.signed, u.remote):
		return nil
	case err != nil:
		return err
	}
	return u.nothing(ctx)
}

// entries lists those of a document that local identities may try, and keeps
// the signed ones for the others.
func (u *unwrapper) entries(ctx context.Context, r *grantRecord) (out []encrypt.Stanza) {
	u.seen += len(r.doc.Recipients)
	scoped := len(u.ring.want) > 0 && slices.ContainsFunc(r.doc.Recipients, ofFiles)
	vouched := (len(u.remote) > 0 || scoped) && u.signedGrant(ctx, r)
	for _, s := range r.doc.Recipients {
		if ofFiles(s) && !(scoped && vouched) {
			if u.mine[s.KeyID] {
				u.partial++
			}
			continue
		}
		out = append(out, s)
		if vouched {
			u.signed = append(u.signed, s)
		}
	}
	return out
}

func ofFiles(s encrypt.Stanza) bool { return s.Scope == encrypt.ScopeFiles }

// try offers entries to identities and reports whether ring has enough.
func (u *unwrapper) try(ctx context.Context, entries []encrypt.Stanza, identities []encrypt.Identity) bool {
	if len(entries) == 0 || len(identities) == 0 {
		return false
	}
	err := encrypt.Unwrap(ctx, entries, u.binding, u.c.now(), u.ring.take, identities...)
	if err == nil {
		return true
	}
	u.failed = err
	return false
}

// nothing says why there is no key, or not of every file.
func (u *unwrapper) nothing(ctx context.Context) error {
	switch missing := u.ring.missing(); {
	case ctx.Err() != nil:
		return ctx.Err()
	case len(u.c.Identities) == 0:
		return fmt.Errorf("%w: it is encrypted, and the client has no identities", ErrNoKey)
	case u.seen == 0:
		return fmt.Errorf("%w: the registry lists no grant for it; ask its owner for one, or copy it with its grants", ErrNoKey)
	case len(u.ring.some) > 0:
		return fmt.Errorf("%w: no grant opens %q; those found open %q", ErrNoKey, clip(missing), u.ring.names())
	case len(u.ring.errs) > 0:
		return fmt.Errorf("%w: %w", ErrNoKey, errors.Join(u.ring.errs...))
	case u.partial > 0 && len(u.ring.want) > 0:
		return fmt.Errorf("%w: %d grant entries for some files, none signed by a grant signer of the policy", ErrNoKey, u.partial)
	case u.partial > 0:
		return fmt.Errorf("%w: %w: name those that you want", ErrNoKey, ErrPartial)
	case u.failed == nil:
		return fmt.Errorf("%w: %d grant entries, none signed by a grant signer of the policy", ErrNoKey, u.seen)
	}
	return fmt.Errorf("%w: %w", ErrNoKey, u.failed)
}
