// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11_test

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/miekg/pkcs11"

	key "github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

// softHSM is where Debian has the library.
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

var admin *pkcs11.Ctx // the library, for the preparations of the tests

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "softhsm")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "directories.tokendir = %s\nlog.level = ERROR\n", dir), 0o600); err != nil {
		panic(err)
	}
	os.Setenv("SOFTHSM2_CONF", conf)
	if _, err := os.Stat(softHSM); err == nil {
		ctx, release, err := key.Load(softHSM)
		if err != nil {
			panic(err)
		}
		defer release()
		admin = ctx
	}
	return m.Run()
}

// token is a fresh token with one user.
type token struct {
	label, pin string
	slot       uint
	session    pkcs11.SessionHandle
}

func newToken(t *testing.T) *token {
	t.Helper()
	if admin == nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI needs SoftHSM")
		}
		t.Skip("not tried: SoftHSM is missing")
	}
	tok := &token{label: "modelsec " + rand.Text()[:12], pin: "pin-" + rand.Text()}
	slots, err := admin.GetSlotList(true)
	check(t, err)
	check(t, admin.InitToken(slots[len(slots)-1], "officer", tok.label)) // the last slot is always a free one
	slots, err = admin.GetSlotList(true)
	check(t, err)
	for _, slot := range slots {
		if info, err := admin.GetTokenInfo(slot); err == nil && info.Label == tok.label {
			tok.slot = slot
		}
	}
	tok.session, err = admin.OpenSession(tok.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
	check(t, err)
	check(t, admin.Login(tok.session, pkcs11.CKU_SO, "officer"))
	check(t, admin.InitPIN(tok.session, tok.pin))
	check(t, admin.Logout(tok.session))
	check(t, admin.Login(tok.session, pkcs11.CKU_USER, tok.pin))
	return tok
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// generate makes an AES key in the token. more replaces attributes.
func (tok *token) generate(t *testing.T, label string, id byte, length int, more ...*pkcs11.Attribute) pkcs11.ObjectHandle {
	t.Helper()
	handle, err := admin.GenerateKey(tok.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, append([]*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_TOKEN, true), pkcs11.NewAttribute(pkcs11.CKA_PRIVATE, true),
		pkcs11.NewAttribute(pkcs11.CKA_LABEL, label), pkcs11.NewAttribute(pkcs11.CKA_ID, []byte{id}),
		pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, length),
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, true), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, true),
	}, more...))
	check(t, err)
	return handle
}

// secret is what makes a key one that stays in the token.
var secret = []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false)}

// permit lets a key be used or not.
func (tok *token) permit(t *testing.T, label string, use bool) {
	t.Helper()
	// Somebody may have logged out.
	if err := admin.Login(tok.session, pkcs11.CKU_USER, tok.pin); err != nil && err != pkcs11.Error(pkcs11.CKR_USER_ALREADY_LOGGED_IN) {
		t.Fatal(err)
	}
	check(t, admin.FindObjectsInit(tok.session, []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_LABEL, label)}))
	found, _, err := admin.FindObjects(tok.session, 1)
	check(t, err)
	check(t, admin.FindObjectsFinal(tok.session))
	check(t, admin.SetAttributeValue(tok.session, found[0], []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_ENCRYPT, use), pkcs11.NewAttribute(pkcs11.CKA_DECRYPT, use),
	}))
}

// shim passes everything on to the real library, counts, and fails or stalls on
// demand.
type shim struct {
	key.Library
	mu       sync.Mutex
	requests int
	sessions int
	fail     error
	stall    chan struct{}
}

func (s *shim) request() error {
	s.mu.Lock()
	s.requests++
	stall, err := s.stall, s.fail
	s.mu.Unlock()
	if stall != nil {
		<-stall // PKCS#11 knows no context
	}
	return err
}

func (s *shim) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests
}

func (s *shim) Login(h pkcs11.SessionHandle, user uint, pin string) error {
	if err := s.request(); err != nil {
		return err
	}
	return s.Library.Login(h, user, pin)
}

func (s *shim) EncryptInit(h pkcs11.SessionHandle, m []*pkcs11.Mechanism, k pkcs11.ObjectHandle) error {
	if err := s.request(); err != nil {
		return err
	}
	return s.Library.EncryptInit(h, m, k)
}

func (s *shim) DecryptInit(h pkcs11.SessionHandle, m []*pkcs11.Mechanism, k pkcs11.ObjectHandle) error {
	if err := s.request(); err != nil {
		return err
	}
	return s.Library.DecryptInit(h, m, k)
}

func (s *shim) OpenSession(slot, flags uint) (pkcs11.SessionHandle, error) {
	s.mu.Lock()
	s.sessions++
	s.mu.Unlock()
	return s.Library.OpenSession(slot, flags)
}

func (s *shim) CloseSession(h pkcs11.SessionHandle) error {
	s.mu.Lock()
	s.sessions--
	s.mu.Unlock()
	return s.Library.CloseSession(h)
}

func (s *shim) enter(err error, stall bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stall != nil {
		close(s.stall)
		s.stall = nil
	}
	if stall {
		s.stall = make(chan struct{})
	}
	s.fail = err
}
