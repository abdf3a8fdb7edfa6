// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"testing"

	"github.com/modelsec/modelsec-go/modelsec"
)

// TestSigningCallsNeedADigest is K2: a tag may have moved since the caller
// looked.
func TestSigningCallsNeedADigest(t *testing.T) {
	p := newParty(t)
	memory, d := granted(t, p, true)
	c := p.client(memory)
	by := modelsec.TagOptions{Signer: p.signer}
	_, err := c.Attest(t.Context(), tagged, p.signer, slsa(t))
	refused(t, err, modelsec.ErrUnpinned)
	refused(t, c.Tag(t.Context(), tagged, by, "v4"), modelsec.ErrUnpinned)
	if _, err := c.Attest(t.Context(), pinned(d), p.signer, slsa(t)); err != nil {
		t.Error(err)
	}
	if err := c.Tag(t.Context(), pinned(d), by, "v4", "latest"); err != nil {
		t.Error(err)
	}
	for _, tag := range []string{":v4", ":latest", ":v3"} {
		if _, err := c.Verify(t.Context(), repository+tag, p.policy()); err != nil {
			t.Errorf("%s: %v", tag, err)
		}
	}
	_, err = c.Attest(t.Context(), pinned(d), nil, slsa(t))
	refused(t, err, modelsec.ErrConfig)
	refused(t, c.Tag(t.Context(), pinned(d), modelsec.TagOptions{}, "v5"), modelsec.ErrConfig)
	refused(t, c.Tag(t.Context(), pinned(d), by), modelsec.ErrConfig)
	// What was signed for another artifact is not attached to this one.
	_, err = c.Attach(t.Context(), pinned(d), signed(t, p, digestOf(nil), slsa(t)))
	refused(t, err, modelsec.ErrConfig)
	if _, err := c.Attach(t.Context(), pinned(d), signed(t, p, d.Digest, slsa(t))); err != nil {
		t.Error(err)
	}
}
