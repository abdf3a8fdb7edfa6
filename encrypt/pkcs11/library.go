// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/modelsec/modelsec-go/encrypt"
)

// library is what of PKCS#11 is used here.
type library interface {
	GetSlotList(tokenPresent bool) ([]uint, error)
	GetTokenInfo(slot uint) (pkcs11.TokenInfo, error)
	OpenSession(slot, flags uint) (pkcs11.SessionHandle, error)
	CloseSession(pkcs11.SessionHandle) error
	Login(s pkcs11.SessionHandle, user uint, pin string) error
	FindObjectsInit(pkcs11.SessionHandle, []*pkcs11.Attribute) error
	FindObjects(s pkcs11.SessionHandle, max int) ([]pkcs11.ObjectHandle, bool, error)
	FindObjectsFinal(pkcs11.SessionHandle) error
	GetAttributeValue(pkcs11.SessionHandle, pkcs11.ObjectHandle, []*pkcs11.Attribute) ([]*pkcs11.Attribute, error)
	EncryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Encrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	DecryptInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Decrypt(pkcs11.SessionHandle, []byte) ([]byte, error)
	SignInit(pkcs11.SessionHandle, []*pkcs11.Mechanism, pkcs11.ObjectHandle) error
	Sign(pkcs11.SessionHandle, []byte) ([]byte, error)
}

// module is a loaded library. PKCS#11 is initialised once for a process, so the
// Keys and Signers of one library share it.
type module struct {
	path  string
	ctx   *pkcs11.Ctx
	ours  bool // we initialised it, so we finalise it
	users int
}

var (
	modulesMu sync.Mutex
	modules   = make(map[string]*module)
)

func load(path string) (*module, error) {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	if m := modules[path]; m != nil {
		m.users++
		return m, nil
	}
	ctx := pkcs11.New(path)
	if ctx == nil {
		return nil, fmt.Errorf("pkcs11: %s cannot be loaded as a PKCS#11 library", path)
	}
	m := &module{path: path, ctx: ctx, ours: true, users: 1}
	if err := ctx.Initialize(); is(err, pkcs11.CKR_CRYPTOKI_ALREADY_INITIALIZED) {
		m.ours = false
	} else if err != nil {
		ctx.Destroy()
		return nil, fmt.Errorf("pkcs11: initialise %s: %w", path, err)
	}
	modules[path] = m
	return m, nil
}

func (m *module) release() error {
	modulesMu.Lock()
	defer modulesMu.Unlock()
	if m.users--; m.users > 0 {
		return nil
	}
	delete(modules, m.path)
	var err error
	if m.ours {
		err = m.ctx.Finalize()
	}
	m.ctx.Destroy()
	return err
}

// is reports whether err is one of the return codes.
func is(err error, codes ...pkcs11.Error) bool {
	got, ok := errors.AsType[pkcs11.Error](err)
	for _, c := range codes {
		if ok && got == c {
			return true
		}
	}
	return false
}

// lost reports whether a session, the login or the handle of the key is gone, so
// that starting over may help.
func lost(err error) bool {
	return is(err, pkcs11.CKR_SESSION_HANDLE_INVALID, pkcs11.CKR_SESSION_CLOSED, pkcs11.CKR_USER_NOT_LOGGED_IN,
		pkcs11.CKR_OBJECT_HANDLE_INVALID, pkcs11.CKR_KEY_HANDLE_INVALID, pkcs11.CKR_DEVICE_REMOVED,
		pkcs11.CKR_TOKEN_NOT_PRESENT, pkcs11.CKR_TOKEN_NOT_RECOGNIZED, pkcs11.CKR_DEVICE_ERROR, pkcs11.CKR_CRYPTOKI_NOT_INITIALIZED)
}

// meaning wraps the error that package encrypt knows around a return code.
func meaning(err error) error {
	switch {
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_EXPIRED, pkcs11.CKR_PIN_LOCKED,
		pkcs11.CKR_USER_PIN_NOT_INITIALIZED, pkcs11.CKR_USER_NOT_LOGGED_IN, pkcs11.CKR_USER_TYPE_INVALID):
		return fmt.Errorf("%w: %w", encrypt.ErrDenied, err)
	case is(err, pkcs11.CKR_KEY_FUNCTION_NOT_PERMITTED):
		return fmt.Errorf("%w: %w", encrypt.ErrDisabled, err)
	case lost(err), is(err, pkcs11.CKR_SESSION_COUNT, pkcs11.CKR_HOST_MEMORY, pkcs11.CKR_DEVICE_MEMORY):
		return fmt.Errorf("%w: %w", encrypt.ErrUnavailable, err)
	}
	return err
}
