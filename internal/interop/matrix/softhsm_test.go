// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"
)

// softHSM is where Debian has the library.
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// library loads SoftHSM into this process, once, with a directory for its
// tokens; it finds its configuration in the environment of the process.
var library = sync.OnceValues(func() (*pkcs11.Ctx, error) {
	dir, err := built()
	if err != nil {
		return nil, err
	}
	conf, tokens := filepath.Join(dir, "softhsm2.conf"), filepath.Join(dir, "tokens")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		return nil, err
	}
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nlog.level = ERROR\n", tokens), 0o600); err != nil {
		return nil, err
	}
	if err := os.Setenv("SOFTHSM2_CONF", conf); err != nil {
		return nil, err
	}
	c := pkcs11.New(softHSM)
	if c == nil {
		return nil, fmt.Errorf("%s does not load", softHSM)
	}
	return c, c.Initialize()
})

// token is a token of SoftHSM with two keys that stay in it.
func token(t *testing.T) provider {
	if _, err := os.Stat(softHSM); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI needs SoftHSM")
		}
		t.Skip("not tried: SoftHSM is missing")
	}
	hsm, err := library()
	check(t, err)
	label, pin, slots := "models "+rand.Text()[:8], rand.Text(), must(hsm.GetSlotList(true))(t)
	check(t, hsm.InitToken(slots[len(slots)-1], "officer", label))
	var session pkcs11.SessionHandle
	for _, slot := range must(hsm.GetSlotList(true))(t) {
		if info := must(hsm.GetTokenInfo(slot))(t); info.Label == label {
			session = must(hsm.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION))(t)
		}
	}
	check(t, hsm.Login(session, pkcs11.CKU_SO, "officer"))
	check(t, hsm.InitPIN(session, pin))
	check(t, hsm.Logout(session))
	check(t, hsm.Login(session, pkcs11.CKU_USER, pin))
	var release pkcs11.ObjectHandle
	for _, label := range []string{"another", "release"} {
		release = must(hsm.GenerateKey(session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, []*pkcs11.Attribute{
			pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
			pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, 32),
			pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
			pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false),
		}))(t)
	}
	permit := func(use bool) func(*testing.T) {
		return func(t *testing.T) {
			check(t, hsm.SetAttributeValue(session, release, []*pkcs11.Attribute{
				pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, use), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, use),
			}))
		}
	}
	p := provider{
		recipient: "pkcs11:token=" + url.PathEscape(label) + ";object=release", stranger: "pkcs11:token=" + url.PathEscape(label) + ";object=another",
		env: []string{"SOFTHSM2_CONF=" + os.Getenv("SOFTHSM2_CONF"), "PKCS11_MODULE_PATH=" + softHSM, "PKCS11_PIN=" + pin},
	}
	p.identity = p.recipient
	p.service.Disable, p.service.Heal = permit(false), permit(true)
	return p
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// must returns a function that ends the test where err is one, else returns v.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}
