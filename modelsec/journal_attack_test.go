// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
)

// TestPushDoesNotSealUnderAKeyFromAForgedJournal: everything that a journal
// needs to look right is public. Whoever can write the file must not choose the
// key that a model is encrypted under. K6.
func TestPushDoesNotSealUnderAKeyFromAForgedJournal(t *testing.T) {
	c, p, ref, journal, src, _, _ := interruptedPush(t, true)
	line, _, ok := bytes.Cut(must(os.ReadFile(journal)), []byte("\n"))
	if !ok {
		t.Fatal("the journal has no first line")
	}
	var head map[string]json.RawMessage
	if err := json.Unmarshal(line, &head); err != nil {
		t.Fatal(err)
	}
	var plan digest.Digest
	if err := json.Unmarshal(head["plan"], &plan); err != nil {
		t.Fatal(err)
	}
	// The attacker knows the plan and the public key of the recipient.
	mine := encrypt.NewKey()
	defer mine.Close()
	var id [16]byte
	b := encrypt.Binding{ArtifactID: id, Commitment: mine.Commitment(id), Manifest: plan}
	g := encrypt.Grant{ArtifactID: id, Commitment: b.Commitment, Manifest: plan,
		Recipients: must(encrypt.WrapKey(t.Context(), mine, b, p.identity.Recipient()))}
	head["grant"] = must(json.Marshal(must(g.Encode())))
	if err := os.WriteFile(journal, append(must(json.Marshal(head)), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := c.Push(context.Background(), ref, src, pushOptions(p, journal, true))
	if err != nil {
		t.Fatal(err)
	}
	s := openShelf(t, remote(), ref[:len(ref)-len(":v3")])
	for _, r := range s.referrers(d, grantType) {
		found := must(encrypt.ParseGrant(s.read(s.manifest(r).Layers[0])))
		if found.Commitment == b.Commitment {
			t.Error("the model is encrypted under the attacker's key")
		}
	}
}
