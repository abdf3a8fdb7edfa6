// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs11_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	key "github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

func TestParseURI(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PKCS11_MODULE_PATH", "/default.so")
	t.Setenv("PKCS11_PIN", "0000")
	for uri, want := range map[string]struct {
		key.Config
		pin string
	}{
		"pkcs11:token=My%20HSM;object=kek?module-path=/usr/lib/x.so&pin-value=12%26":      {key.Config{Module: "/usr/lib/x.so", Token: "My HSM", Object: "kek"}, "12&"},
		"pkcs11:id=%01%ff;token=T;type=secret-key?pin-source=file:" + file:                {key.Config{Module: "/default.so", Token: "T", ID: []byte{1, 255}}, "1234"},
		"pkcs11:serial=S;manufacturer=M;model=L;token=T;object=k;id=a?pin-source=" + file: {key.Config{Module: "/default.so", Token: "T", Serial: "S", Manufacturer: "M", Model: "L", Object: "k", ID: []byte("a")}, "1234"},
		"pkcs11:token=T;object=k": {key.Config{Module: "/default.so", Token: "T", Object: "k"}, "0000"},
	} {
		c, err := key.ParseURI(uri)
		if err != nil {
			t.Errorf("%s: %v", uri, err)
			continue
		}
		pin, err := c.PIN()
		if err != nil || pin != want.pin {
			t.Errorf("%s: PIN %q, error %v", uri, pin, err)
		}
		if c.Module != want.Module || c.Token != want.Token || c.Serial != want.Serial || c.Manufacturer != want.Manufacturer || c.Model != want.Model || c.Object != want.Object || string(c.ID) != string(want.ID) {
			t.Errorf("%s: %+v", uri, c)
		}
	}
	for _, uri := range []string{"pkcs11:token=T;object=k?pin-value=12&2468", "pkcs11:token=T;object=k?pin-value=2468%zz"} {
		if _, err := key.ParseURI(uri); err == nil || strings.Contains(err.Error(), "2468") {
			t.Errorf("%s: error %v, want one without the PIN", uri, err)
		}
	}
	t.Setenv("PKCS11_PIN", "")
	if c, err := key.ParseURI("pkcs11:token=T;object=k"); err != nil || c.PIN != nil {
		t.Errorf("a login without a PIN: error %v", err)
	}
	for _, uri := range []string{
		"", "pkcs11:", "pkcs12:token=T;object=k", "pkcs11:token=T", "pkcs11:object=k", "pkcs11:token=T;object=k;object=l", "pkcs11:token=T;object=",
		"pkcs11:token=T;object=%zz", "pkcs11:token=T;object=k;type=private", "pkcs11:token=T;object=k;slot-id=0", "pkcs11:token=T;object=k;x-vendor=1",
		"pkcs11:token=T;object=k?module-name=x", "pkcs11:token=T;object=k?module-path=x.so", "pkcs11:token=T;object=k?pin-source=%7Ccat%20pin", "pkcs11:token=T;object=k?pin-source=pin",
		"pkcs11:token=T;object=k?pin-value=1&pin-source=/p", "pkcs11:token=T;object=a%00b", "pkcs11:token=" + strings.Repeat("x", 600) + ";object=k", "pkcs11:token=T;object=k?pin-value=" + strings.Repeat("x", 9000),
	} {
		if c, err := key.ParseURI(uri); err == nil {
			t.Errorf("%.60s was taken: %+v", uri, c)
		} else if len(err.Error()) > 200 {
			t.Errorf("%.60s: an error of %d bytes", uri, len(err.Error()))
		}
	}
	c, err := key.ParseURI("pkcs11:token=T;object=k?pin-source=/does/not/exist")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.PIN(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

// FuzzParseURI: no URI panics; one that is taken names a token and a key.
func FuzzParseURI(f *testing.F) {
	f.Add("pkcs11:token=My%20HSM;object=kek;id=%01;type=secret-key?module-path=/usr/lib/x.so&pin-source=file:/pin")
	f.Add("pkcs11:token=T;object=k?pin-value=1")
	f.Fuzz(func(t *testing.T, uri string) {
		c, err := key.ParseURI(uri)
		if err == nil && (c.Token == "" || c.Object == "" && len(c.ID) == 0 || !filepath.IsAbs(c.Module)) {
			t.Errorf("%q became %+v", uri, c)
		}
	})
}

// TestKeyIsBothSides holds with and without cgo.
func TestKeyIsBothSides(t *testing.T) {
	var k any = (*key.Key)(nil)
	if _, ok := k.(encrypt.Recipient); !ok {
		t.Error("a Key is no Recipient")
	}
	if _, ok := k.(encrypt.Identity); !ok {
		t.Error("a Key is no Identity")
	}
}
