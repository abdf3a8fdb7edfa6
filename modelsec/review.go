// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"fmt"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
)

// ReviewOptions say what a review compares. Nil: nothing.
type ReviewOptions struct {
	// Policy says whose signatures on grants count; the entries of such
	// documents are Vouched. The artifacts themselves are not judged by it. Nil:
	// no entry is.
	Policy *provenance.Policy

	// Known are keys by the names that the review gives them: Recipients or
	// Identities. Without them a key id says nothing, by design: every artifact
	// has another one for the same key.
	Known map[string]encrypt.Keyed

	// Digests are versions to review beside those with a tag.
	Digests []godigest.Digest
}

// Reviewed is what the registry lists about one version.
type Reviewed struct {
	Version
	Encrypted bool         // False: everybody who can read the repository can read it.
	Grants    []GrantEntry // Who can open it.
	Err       error        // Why that is not known; nil otherwise.
}

// Review lists who can open the versions of a repository, or the one that ref
// names, by key id and until when. It is what the registry shows: a grant that it hides, and a key that
// somebody kept, are not in it. No key is used.
//
// A version that cannot be read is listed with the reason, and the error is
// that of the repository alone.
func (c *Client) Review(ctx context.Context, ref string, o *ReviewOptions) ([]Reviewed, error) {
	c.init()
	op := c.begin("review", ref)
	if o == nil {
		o = &ReviewOptions{}
	}
	var out []Reviewed
	err := c.overVersions(ctx, op, o.Digests, func(pinned string, v Version) error {
		r := Reviewed{Version: v}
		one := c.begin("review", pinned)
		r.Err = one.fail(c.reviewVersion(ctx, one, o, &r))
		out = append(out, r)
		return ctx.Err()
	})
	return out, op.fail(err)
}

func (c *Client) reviewVersion(ctx context.Context, op *operation, o *ReviewOptions, out *Reviewed) error {
	_, store, err := c.openStore(ctx, op)
	if err != nil {
		return err
	}
	desc, err := store.Resolve(ctx, string(out.Digest))
	if err != nil || desc.MediaType != ocispec.MediaTypeImageManifest {
		return err
	}
	a, err := c.resolve(ctx, op)
	if err != nil || !a.encryptedModel() {
		return err
	}
	out.Encrypted = true
	var unheard error
	if o.Policy != nil {
		if a.rule, err = o.Policy.Rule(a.ref.Name); err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		a.policy, a.verifiers = *o.Policy, c.verifiersOf(a.rule)
		// Where it is not known who is denied, nobody vouches for anything.
		unheard = a.hearGrantSigners(ctx)
	}
	b, err := a.grantBinding(ctx)
	if err != nil {
		return err
	}
	names := make(map[string]string)
	for name, key := range o.Known {
		names[key.KeyID(b)] = name
	}
	err = a.allGrants(ctx, b, func(r *grantRecord) {
		vouched := o.Policy != nil && a.signedGrant(ctx, r)
		for _, s := range r.doc.Recipients {
			e := newGrantEntry(r, s)
			e.Recipient, e.Vouched = names[s.KeyID], vouched
			out.Grants = append(out.Grants, e)
		}
	})
	return join(err, unheard)
}

// hearGrantSigners learns whose word on grants counts, without a judgement of
// the artifact: from the denial lists at their sources and of the caller.
func (a *artifact) hearGrantSigners(ctx context.Context) (err error) {
	a.walk = newWalk(a.policy, false)
	denials := a.fetchLists(ctx).proven
	for _, b := range a.c.Bundles {
		if got, err := a.prove(ctx, b); err == nil && got.Statement.PredicateType == provenance.PredicateDenials {
			denials = append(denials, *got)
		}
	}
	a.grantRule, err = a.policy.GrantRule(provenance.Evidence{Reference: a.ref.Name, Manifest: a.desc.Digest, Now: a.c.now(), Denials: denials})
	return err
}
