// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/pkcs11"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	key "github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

// open returns a Key over the library or over what stands for it.
func open(t *testing.T, c key.Config, lib key.Library) *key.Key {
	t.Helper()
	c.Module = softHSM
	var k *key.Key
	var err error
	if lib == nil {
		k, err = key.New(c)
	} else {
		k, err = key.NewWith(c, lib)
	}
	check(t, err)
	t.Cleanup(func() { check(t, k.Close()) })
	return k
}

func (tok *token) config(label string) key.Config {
	return key.Config{Token: tok.label, Object: label, PIN: func() (string, error) { return tok.pin, nil }}
}

func roundTrip(t *testing.T, k *key.Key) error {
	t.Helper()
	binding, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), binding, b, k)
	if err != nil {
		return err
	}
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, k)
	if err == nil {
		got.Close()
	}
	return err
}

func TestContract(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		tok := newToken(t)
		tok.generate(t, "ours", 1, 32, secret...)
		tok.generate(t, "theirs", 2, 32, secret...)
		var pin atomic.Pointer[string]
		pin.Store(&tok.pin)
		c := tok.config("ours")
		c.PIN = func() (string, error) { return *pin.Load(), nil }
		s := &shim{Library: admin}
		ours := open(t, c, s)
		return encrypttest.Pair{
			Recipient: ours, Identity: ours, Stranger: open(t, tok.config("theirs"), s),
			Binds:    true,
			Secrets:  [][]byte{[]byte(tok.pin)},
			Requests: s.count,
			Service: encrypttest.Service{
				Disable: func(t *testing.T) { tok.permit(t, "ours", false) },
				Deny: func(t *testing.T) {
					wrong := "wrong"
					pin.Store(&wrong)
					check(t, admin.Logout(tok.session))
				},
				Fail:  func(*testing.T) { s.enter(pkcs11.Error(pkcs11.CKR_DEVICE_REMOVED), false) },
				Stall: func(*testing.T) { s.enter(nil, true) },
				Heal: func(t *testing.T) {
					pin.Store(&tok.pin)
					s.enter(nil, false)
					tok.permit(t, "ours", true)
				},
				Without: map[string]string{
					"Throttle": "a token in a slot counts no requests",
					"Quote":    "return codes are numbers",
				},
			},
		}
	})
}

// TestNewLoadsTheLibrary is the whole way, without anything between the Key and
// the library.
func TestNewLoadsTheLibrary(t *testing.T) {
	tok := newToken(t)
	tok.generate(t, "ours", 1, 32, secret...)
	k := open(t, tok.config("ours"), nil)
	if err := roundTrip(t, k); err != nil {
		t.Error(err)
	}
	if _, err := key.New(key.Config{Module: "/does/not/exist.so", Token: "t", Object: "o"}); err == nil {
		t.Error("a library that is not there was loaded")
	}
	check(t, k.Close())
	if err := roundTrip(t, k); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("a closed key: error %v, want ErrClosed", err)
	}
	k = open(t, tok.config("ours"), nil) // Close of one is not the end of others
	if err := roundTrip(t, k); err != nil {
		t.Error(err)
	}
}

// TestStartsOver: sessions that were closed and a login that is gone are made
// good within the call, with one login and not one for each session.
func TestStartsOver(t *testing.T) {
	tok := newToken(t)
	tok.generate(t, "ours", 1, 32, secret...)
	s := &shim{Library: admin}
	k := open(t, tok.config("ours"), s)
	for name, spoil := range map[string]func(){
		"first use":       func() {},
		"logged out":      func() { check(t, admin.Logout(tok.session)) },
		"sessions closed": func() { check(t, admin.CloseAllSessions(tok.slot)) },
	} {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if err := roundTrip(t, k); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		spoil()
		before := s.count()
		if err := wrapOnce(t, k); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if n := s.count() - before; n > 3 { // wrap, login, wrap again
			t.Errorf("%s: %d requests in one call, want at most 3", name, n)
		}
		var err error
		tok.session, err = admin.OpenSession(tok.slot, pkcs11.CKF_SERIAL_SESSION|pkcs11.CKF_RW_SESSION)
		check(t, err)
	}
	check(t, k.Close())
	if s.sessions > 8 { // those that CloseAllSessions took were not closed by the Key
		t.Errorf("%d sessions are left", s.sessions)
	}
}

// TestWrongPINIsTriedOnce: tokens lock.
func TestWrongPINIsTriedOnce(t *testing.T) {
	tok := newToken(t)
	tok.generate(t, "ours", 1, 32, secret...)
	check(t, admin.Logout(tok.session))
	s := &shim{Library: admin}
	c := tok.config("ours")
	c.PIN = func() (string, error) { return "wrong", nil }
	k := open(t, c, s)
	for range 5 {
		if err := roundTrip(t, k); !errors.Is(err, encrypt.ErrDenied) || strings.Contains(err.Error(), "wrong\"") {
			t.Errorf("error %v, want ErrDenied", err)
		}
	}
	if n := s.count(); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	c.PIN = func() (string, error) { return "", errors.New("the file is gone") }
	if err := roundTrip(t, open(t, c, s)); err == nil || s.count() != 1 {
		t.Errorf("without a PIN: error %v, %d logins", err, s.count())
	}
}

// TestKeysThatDoNotSuit: only a key of 256 bits that stays in the token is used.
func TestKeysThatDoNotSuit(t *testing.T) {
	tok := newToken(t)
	tok.generate(t, "short", 1, 16, secret...)
	tok.generate(t, "extractable", 2, 32, pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, true), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, true))
	tok.generate(t, "readable", 3, 32, pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, false), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, false))
	tok.generate(t, "twice", 4, 32, secret...)
	tok.generate(t, "twice", 5, 32, secret...)
	for label, want := range map[string]string{
		"short": "not an AES key of 256 bits", "extractable": "could be read out", "readable": "could be read out", "twice": "several keys match", "absent": "no such key",
	} {
		if err := roundTrip(t, open(t, tok.config(label), admin)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one that says %q", label, err, want)
		}
	}
	c := tok.config("twice")
	c.ID = []byte{5}
	if err := roundTrip(t, open(t, c, admin)); err != nil {
		t.Errorf("one of two by its id: %v", err)
	}
	c.Object = ""
	if err := roundTrip(t, open(t, c, admin)); err != nil {
		t.Errorf("by its id alone: %v", err)
	}
	c.Token = "another"
	if err := wrapOnce(t, open(t, c, admin)); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("no such token: error %v, want ErrUnavailable", err)
	}
	c = tok.config("short")
	c.Serial = "another"
	if err := wrapOnce(t, open(t, c, admin)); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("another serial number: error %v, want ErrUnavailable", err)
	}
}

// wrapOnce wraps without the repetitions of package encrypt.
func wrapOnce(t *testing.T, k *key.Key) error {
	t.Helper()
	_, b := encrypttest.NewBinding(t)
	_, err := k.Wrap(t.Context(), make([]byte, 128), b)
	return err
}

// TestCallsAreBounded: what does not answer takes up sessions, and no more of
// them than are configured; everybody else ends with his context.
func TestCallsAreBounded(t *testing.T) {
	tok := newToken(t)
	tok.generate(t, "ours", 1, 32, secret...)
	s := &shim{Library: admin}
	c := tok.config("ours")
	c.Sessions = 2
	k := open(t, c, s)
	check(t, wrapOnce(t, k))
	s.enter(nil, true)
	before := s.count()
	_, b := encrypttest.NewBinding(t)
	for range 6 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := k.Wrap(ctx, make([]byte, 128), b); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want DeadlineExceeded", err)
		}
		cancel()
	}
	if n := s.count() - before; n > 2 {
		t.Errorf("%d calls are under way, want at most 2", n)
	}
	s.enter(nil, false)
	if err := roundTrip(t, k); err != nil {
		t.Error(err)
	}
}

// TestNoncesDiffer: a body begins with the nonce that was used, and no two are the
// same.
func TestNoncesDiffer(t *testing.T) {
	tok := newToken(t)
	tok.generate(t, "ours", 1, 32, secret...)
	k := open(t, tok.config("ours"), admin)
	_, b := encrypttest.NewBinding(t)
	var seen [][]byte
	for range 3 {
		s, err := k.Wrap(t.Context(), make([]byte, 128), b)
		check(t, err)
		if len(s.Body) != 12+128+16 || bytes.Equal(s.Body[:12], make([]byte, 12)) {
			t.Errorf("body of %d bytes, nonce %x", len(s.Body), s.Body[:12])
		}
		for _, other := range seen {
			if bytes.Equal(other, s.Body[:12]) {
				t.Error("a nonce was used twice")
			}
		}
		seen = append(seen, s.Body[:12])
	}
}
