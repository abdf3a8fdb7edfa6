// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/provenance"
)

// FuzzParseBundle: what is accepted is carried unmodified, and reads the same
// when it is read again.
func FuzzParseBundle(f *testing.F) {
	f.Add([]byte(validBundle))
	for _, edits := range []map[string][2]string{toleratedEdits, refusedEdits} {
		for _, edit := range edits {
			f.Add([]byte(strings.Replace(validBundle, edit[0], edit[1], 1)))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b, err := provenance.ParseBundle(in)
		if err != nil {
			return
		}
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		again, err := provenance.ParseBundle(out)
		if err != nil {
			t.Fatalf("accepted %q, refused its own form %q: %v", in, out, err)
		}
		if !bytes.Equal(b.Bytes(), in) || !reflect.DeepEqual(again.Envelope(), b.Envelope()) {
			t.Fatalf("%q reads in two ways", in)
		}
	})
}

// FuzzParsePolicy: what is accepted is valid and survives a round trip.
func FuzzParsePolicy(f *testing.F) {
	for _, v := range policyVectors(f) {
		f.Add([]byte(v[1]))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		p, err := provenance.ParsePolicy(in)
		if err != nil {
			if !reflect.DeepEqual(p, provenance.Policy{}) {
				t.Fatal("a policy with an error was returned in part")
			}
			return
		}
		out, err := json.Marshal(p)
		if err != nil {
			t.Fatalf("accepted %q, which has no JSON form: %v", in, err)
		}
		again, err := provenance.ParsePolicy(out)
		if err != nil {
			t.Fatalf("accepted %q, refused its own form %q: %v", in, out, err)
		}
		if twice, err := json.Marshal(again); err != nil || !bytes.Equal(out, twice) {
			t.Fatalf("%q became %q", out, twice)
		}
		if p.Evaluate(provenance.Evidence{Reference: repository, Manifest: manifest, IndexDigest: index, Profile: provenance.ProfileEncrypted, Now: now}).Allowed {
			t.Fatalf("%q allows an artifact without evidence", in)
		}
	})
}

// FuzzDecodeStatement: an accepted statement about one thing has one encoding,
// and the predicates inside are read without a panic and written as they were.
func FuzzDecodeStatement(f *testing.F) {
	for _, s := range []provenance.Statement{releaseStatement(f, nil), slsaStatement(f, nil), cosignStatement(), must[provenance.Statement](f)(provenance.NewGrant(index)),
		must[provenance.Statement](f)(provenance.NewDenials(denialList())), plaintextStatement(f, root), summaryStatement(f, nil)} {
		f.Add(must[[]byte](f)(s.Encode(manifest)))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		s, subjects, err := provenance.DecodeStatement(in, nil)
		if err != nil {
			return
		}
		out, err := s.Encode(subjects[0])
		if err != nil {
			t.Fatalf("accepted %q, cannot encode it: %v", in, err)
		}
		again, same, err := provenance.DecodeStatement(out, nil)
		if err != nil || same[0] != subjects[0] || again.PredicateType != s.PredicateType {
			t.Fatalf("%q became %q: %v", in, out, err)
		}
		if r, err := provenance.ParseRelease(s); err == nil {
			if _, err := provenance.NewRelease(r); err != nil {
				t.Fatalf("accepted %q, refused the same release: %v", in, err)
			}
		}
		if l, err := provenance.ParseDenials(s); err == nil {
			if _, err := provenance.NewDenials(l); err != nil {
				t.Fatalf("accepted %q, refused the same denial list: %v", in, err)
			}
		}
		if p, err := provenance.ParsePlaintext(s); err == nil {
			if _, err := provenance.NewPlaintext(p); err != nil {
				t.Fatalf("accepted %q, refused the same plaintext: %v", in, err)
			}
		}
		if v, err := provenance.ParseSummary(s); err == nil && v.Verifier.ID == "" {
			t.Fatalf("accepted %q without a verifier", in)
		}
		if d, err := provenance.ParseGrant(s); err == nil {
			if _, err := provenance.NewGrant(d); err != nil {
				t.Fatalf("accepted %q, refused the same grant: %v", in, err)
			}
		}
		if p, err := provenance.ParseProvenance(s); err == nil && p.RunDetails.Builder.ID == "" {
			t.Fatalf("accepted %q without a builder", in)
		}
	})
}

// FuzzParseKeys: a key that is read has one identity.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(publicPEM(f, newKey(f).Public())))
	f.Add([]byte(publicPEM(f, newEd25519(f).Public())))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA==\n-----END EC PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if key, err := provenance.ParsePrivateKey(in); err == nil {
			if _, err := provenance.KeySigner(key); err != nil {
				t.Fatalf("accepted a private key that cannot sign: %v", err)
			}
		}
		pub, err := provenance.ParsePublicKey(in)
		if err != nil {
			return
		}
		id, err := provenance.KeyID(pub)
		if err != nil {
			t.Fatal(err)
		}
		again, err := provenance.ParsePublicKey([]byte(publicPEM(t, pub)))
		if err != nil {
			t.Fatal(err)
		}
		if other, err := provenance.KeyID(again); err != nil || other != id {
			t.Fatalf("one key has the ids %s and %s", id, other)
		}
	})
}
