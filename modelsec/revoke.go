// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"

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
