// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
)

// ErrNotRotated means that some versions of a repository still stand open to
// the key that was to be replaced; what [Client.Rotate] returns says which.
var ErrNotRotated = errors.New("not every version was rotated")

// RotateOptions say which key takes the place of which. Old and New are
// required.
type RotateOptions struct {
	// Old is the key whose entries go: its Recipient or Identity. A key id does
	// not do, since every artifact has another for the same key.
	Old encrypt.Keyed

	// New are the keys that get what Old has, and no more: the same files, as
	// long as Old.
	New []encrypt.Recipient

	// NotAfter is when the new entries expire. Zero: when the old ones do.
	NotAfter time.Time

	// Signer signs the grants, as in GrantOptions. Entries of Old that a grant
	// signer of the policy signed cannot be replaced without one.
	Signer provenance.Signer

	// AllowClassical is the reason for which weaker recipients than the
	// publisher asked for are accepted.
	AllowClassical string

	// Digests are versions to rotate beside those with a tag.
	Digests []godigest.Digest

	// Journal names a file in which the versions that are done are noted, so
	// that the same rotation goes on where it was interrupted; a version noted
	// there is not looked at again. It is made where it is absent. Empty: none;
	// a version without an entry of Old is done by that.
	Journal string

	// Each is called after every version. Nil: nobody is told.
	Each func(Rotated)
}

// Outcome is what became of one version in a rotation.
type Outcome string

// Outcomes of [Client.Rotate].
const (
	OutcomeReplaced     Outcome = "replaced"      // New has what Old had, and Old is not listed any more.
	OutcomeBefore       Outcome = "before"        // The journal says so of an earlier call.
	OutcomeAbsent       Outcome = "absent"        // No entry for Old is listed: nothing was to be done.
	OutcomeExpired      Outcome = "expired"       // Every entry of Old has expired, and was left alone.
	OutcomeNotEncrypted Outcome = "not encrypted" // A plain model, or none.
	OutcomeFailed       Outcome = "failed"        // Err says why.
)

// Rotated is one version after a rotation.
type Rotated struct {
	Version
	Outcome  Outcome
	Document godigest.Digest // The grant that was written; empty: none.
	Err      error           // Of OutcomeFailed; nil otherwise.
}

// Rotate replaces a key in the grants of all versions of a repository, or of the
// one that ref names. The client must be able to open
// each under the policy, with the old key or another. No layer and no manifest
// is read beyond its index or written: the data keys stay what they are, only
// what wraps them changes, and whoever kept a data key keeps it.
//
// A version that fails does not stop the others. The error is then
// ErrNotRotated, and wraps the first failure.
func (c *Client) Rotate(ctx context.Context, ref string, p provenance.Policy, o *RotateOptions) ([]Rotated, error) {
	c.init()
	op := c.begin("rotate", ref)
	if o == nil || o.Old == nil || len(o.New) == 0 {
		return nil, op.fail(fmt.Errorf("%w: a rotation needs the old and the new keys", ErrConfig))
	}
	var journal *rotateJournal
	if o.Journal != "" {
		var err error
		if journal, err = openRotateJournal(o.Journal, ref, o); err != nil {
			return nil, op.fail(err)
		}
		defer journal.close()
	}
	var out []Rotated
	var first error
	failed := 0
	err := c.overVersions(ctx, op, o.Digests, func(pinned string, v Version) error {
		r := Rotated{Version: v, Outcome: OutcomeBefore, Document: journal.document(v.Digest)}
		if r.Document == "" {
			r = c.rotateOne(ctx, pinned, v, p, o)
		}
		if r.Outcome == OutcomeReplaced {
			if err := journal.note(r); err != nil {
				return err
			}
		}
		if r.Err != nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			if failed++; first == nil {
				first = r.Err
			}
		}
		out = append(out, r)
		if o.Each != nil {
			o.Each(r)
		}
		return nil
	})
	if err == nil && failed > 0 {
		err = fmt.Errorf("%w: %d of %d: %w", ErrNotRotated, failed, len(out), first)
	}
	return out, op.fail(err)
}
