// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gcpkms_test

import (
	"hash/crc32"
	"strings"
	"testing"

	"google.golang.org/api/option"

	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/gcpkms"
)

func crc(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

var uris = []struct{ uri, want string }{
	{"gcpkms://" + keyName, ""},
	{"gcpkms://projects/example.com:models/locations/global/keyRings/r_1/cryptoKeys/K-2", ""},
	{"gcpkms://" + keyName + "?endpoint=cloudkms.europe-west3.rep.googleapis.com:443", ""},
	{"gcpkms://" + keyName + "?endpoint=[::1]:8443", ""},

	{"", "does not begin with gcpkms://"},
	{"gcpkms:" + keyName, "does not begin with gcpkms://"},
	{"gcpkms://", "is not projects/"},
	{"gcpkms://" + keyName + "/", "is not projects/"},
	{"gcpkms://" + keyName + "/cryptoKeyVersions/1", "leave the version out"},
	{"gcpkms://" + strings.Replace(keyName, "models-prod", "123456789012", 1), "with the id of a project"},
	{"gcpkms://" + strings.Replace(keyName, "weights", "../weights", 1), "is not projects/"},
	{"gcpkms://" + keyName + "?", "want HOST:PORT"},
	{"gcpkms://" + keyName + "?endpoint=https://cloudkms.googleapis.com", "want HOST:PORT"},
	{"gcpkms://" + keyName + "?endpoint=unix:/tmp/socket", "want HOST:PORT"},
	{"gcpkms://" + keyName + "?endpoint=dns:///a:1", "want HOST:PORT"},
	{"gcpkms://" + keyName + "?endpoint=a:1&endpoint=b:1", "known is endpoint, once"},
	{"gcpkms://" + keyName + "?token=a", "known is endpoint"},
	{"gcpkms://" + keyName + "?%zz", "invalid URL escape"},
}

func parse(tb testing.TB, uri string) (*gcpkms.Key, error) {
	k, err := gcpkms.New(tb.Context(), uri, &gcpkms.Options{Client: []option.ClientOption{option.WithoutAuthentication()}})
	if err == nil {
		tb.Cleanup(func() { k.Close() })
	}
	return k, err
}

func TestURI(t *testing.T) {
	for _, test := range uris {
		k, err := parse(t, test.uri)
		switch {
		case test.want == "" && err != nil:
			t.Errorf("%s: %v", test.uri, err)
		case test.want == "" && k.String() != test.uri:
			t.Errorf("%s reads back as %s", test.uri, k)
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: error %v, want %q in it", test.uri, err, test.want)
		}
	}
}

func FuzzURI(f *testing.F) {
	for _, test := range uris {
		f.Add(test.uri)
	}
	_, b := encrypttest.NewBinding(f)
	f.Fuzz(func(t *testing.T, uri string) {
		if k, err := parse(t, uri); err == nil && len(k.KeyID(b)) != 32 {
			t.Errorf("key id %q", k.KeyID(b))
		}
	})
}

// TestKeyIDsAreStable: whoever changes what they are made from locks out every
// reader of what was published before.
func TestKeyIDsAreStable(t *testing.T) {
	_, b := encrypttest.NewBinding(t)
	for _, uri := range []string{"gcpkms://" + keyName, "gcpkms://" + keyName + "?endpoint=kms.example.com:443"} {
		k, err := parse(t, uri)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := k.KeyID(b), b.KeyID("gcp-kms", []byte(keyName)); got != want {
			t.Errorf("%s: key id %s, want that of %s", uri, got, keyName)
		}
	}
}
