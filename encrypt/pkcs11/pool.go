// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"

	"github.com/miekg/pkcs11"

	"github.com/modelsec/modelsec-go/encrypt"
)

// pool keeps the sessions of one Key or Signer.
type pool struct {
	config Config
	lib    library
	class  uint          // of the key: CKO_SECRET_KEY or CKO_PRIVATE_KEY
	slots  chan struct{} // holds one for each call under way

	mu         sync.Mutex
	closed     bool
	generation int // of the login; what is older is closed and not kept
	idle       []session
	ready      bool                // logged in, and key found
	key        pkcs11.ObjectHandle // valid in all sessions
	refused    string              // a PIN that must not be tried again
}

// session is one session, used by one call at a time.
type session struct {
	lib        library
	handle     pkcs11.SessionHandle
	key        pkcs11.ObjectHandle
	generation int
}

func newPool(c Config, lib library, class uint) *pool {
	if c.Sessions <= 0 {
		c.Sessions = defaultSessions
	}
	return &pool{config: c, lib: lib, class: class, slots: make(chan struct{}, c.Sessions)}
}

// do calls f with a session and a copy of in, and once more with a new one if
// the first was lost. It waits no longer than ctx; then f goes on alone, and what
// it returns is wiped.
func (p *pool) do(ctx context.Context, in []byte, f func(s session, in []byte) ([]byte, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	in = bytes.Clone(in)
	go func() {
		defer func() { <-p.slots }()
		defer clear(in)
		out, err := p.once(in, f)
		if lost(err) && ctx.Err() == nil {
			out, err = p.once(in, f)
		}
		select {
		case done <- result{out, err}:
		case <-ctx.Done():
			clear(out)
		}
	}()
	select {
	case r := <-done:
		return r.out, meaning(r.err)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) once(in []byte, f func(session, []byte) ([]byte, error)) ([]byte, error) {
	s, err := p.get()
	if err != nil {
		return nil, err
	}
	out, err := f(s, in)
	p.put(s, lost(err))
	return out, err
}

// get returns an idle session or a new one. The first of a generation logs in
// and looks for the key; the others wait for it.
func (p *pool) get() (session, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return session{}, fmt.Errorf("use of a closed key: %w", fs.ErrClosed)
	}
	if n := len(p.idle); n > 0 {
		s := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return s, nil
	}
	slot, err := p.slot()
	if err != nil {
		return session{}, err
	}
	handle, err := p.lib.OpenSession(slot, pkcs11.CKF_SERIAL_SESSION)
	if err != nil {
		return session{}, err
	}
	if !p.ready {
		err := p.login(handle)
		if err == nil {
			p.key, err = p.find(handle)
		}
		if err != nil {
			p.lib.CloseSession(handle)
			return session{}, err
		}
		p.ready = true
	}
	return session{p.lib, handle, p.key, p.generation}, nil
}

// put takes a session back. One that is lost ends its generation.
func (p *pool) put(s session, lost bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if lost && s.generation == p.generation {
		p.generation++
		p.ready = false
		for _, old := range p.idle {
			p.lib.CloseSession(old.handle)
		}
		p.idle = nil
	}
	if s.generation != p.generation || p.closed {
		p.lib.CloseSession(s.handle)
		return
	}
	p.idle = append(p.idle, s)
}

// close waits for the calls under way and closes all sessions.
func (p *pool) close() {
	for range cap(p.slots) {
		p.slots <- struct{}{}
	}
	p.mu.Lock()
	p.closed = true
	for _, s := range p.idle {
		p.lib.CloseSession(s.handle)
	}
	p.idle = nil
	p.mu.Unlock()
	for range cap(p.slots) {
		<-p.slots
	}
}

// slot returns the one that the token of the configuration is in. It may be
// another each time.
func (p *pool) slot() (uint, error) {
	slots, err := p.lib.GetSlotList(true)
	if err != nil {
		return 0, err
	}
	var found []uint
	for _, slot := range slots {
		info, err := p.lib.GetTokenInfo(slot)
		if err != nil {
			continue // it was taken out meanwhile
		}
		matches := true
		for _, pair := range [][2]string{{p.config.Token, info.Label}, {p.config.Serial, info.SerialNumber}, {p.config.Manufacturer, info.ManufacturerID}, {p.config.Model, info.Model}} {
			// Tokens pad with blanks, and some with zeros.
			matches = matches && (pair[0] == "" || pair[0] == strings.TrimRight(pair[1], " \x00"))
		}
		if matches {
			found = append(found, slot)
		}
	}
	switch len(found) {
	case 0:
		return 0, fmt.Errorf("%w: no such token in %d slots", encrypt.ErrUnavailable, len(slots))
	case 1:
		return found[0], nil
	}
	return 0, fmt.Errorf("%d tokens match; name the serial number", len(found))
}

// login logs in for all sessions of this process. Another Key of the token may
// have done so before.
func (p *pool) login(s pkcs11.SessionHandle) error {
	if p.config.PIN == nil {
		return nil
	}
	pin, err := p.config.PIN()
	if err != nil {
		return fmt.Errorf("read the PIN: %w", err)
	}
	if pin == "" {
		return errors.New("the PIN is empty")
	}
	if pin == p.refused {
		return fmt.Errorf("%w: the token refused this PIN before, and would lock", encrypt.ErrDenied)
	}
	err = p.lib.Login(s, pkcs11.CKU_USER, pin)
	switch {
	case is(err, pkcs11.CKR_USER_ALREADY_LOGGED_IN):
		return nil
	case is(err, pkcs11.CKR_PIN_INCORRECT, pkcs11.CKR_PIN_INVALID, pkcs11.CKR_PIN_LEN_RANGE, pkcs11.CKR_PIN_LOCKED):
		p.refused = pin
	case err == nil:
		p.refused = ""
	}
	return err
}

// find returns the handle of the key, if it is one that may be used.
func (p *pool) find(s pkcs11.SessionHandle) (pkcs11.ObjectHandle, error) {
	key, err := p.object(s, p.class)
	if err != nil {
		return 0, err
	}
	return key, p.suits(s, key)
}

// object returns the one object of a class that the configuration names.
func (p *pool) object(s pkcs11.SessionHandle, class uint) (pkcs11.ObjectHandle, error) {
	template := []*pkcs11.Attribute{pkcs11.NewAttribute(pkcs11.CKA_CLASS, class)}
	if p.config.Object != "" {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_LABEL, p.config.Object))
	}
	if len(p.config.ID) > 0 {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_ID, p.config.ID))
	}
	if err := p.lib.FindObjectsInit(s, template); err != nil {
		return 0, err
	}
	found, _, err := p.lib.FindObjects(s, 2)
	if final := p.lib.FindObjectsFinal(s); err == nil {
		err = final
	}
	switch {
	case err != nil:
		return 0, err
	case len(found) == 0:
		return 0, fmt.Errorf("%w: no such key in the token", encrypt.ErrDisabled)
	case len(found) > 1:
		return 0, errors.New("several keys match; name label and id")
	}
	return found[0], nil
}

// suits refuses a key that could leave the token, and one of another type or
// length.
func (p *pool) suits(s pkcs11.SessionHandle, key pkcs11.ObjectHandle) error {
	template := []*pkcs11.Attribute{
		pkcs11.NewAttribute(pkcs11.CKA_KEY_TYPE, nil), pkcs11.NewAttribute(pkcs11.CKA_SENSITIVE, nil), pkcs11.NewAttribute(pkcs11.CKA_EXTRACTABLE, nil),
	}
	if p.class == pkcs11.CKO_SECRET_KEY {
		template = append(template, pkcs11.NewAttribute(pkcs11.CKA_VALUE_LEN, nil))
	}
	got, err := p.lib.GetAttributeValue(s, key, template)
	if err != nil {
		return err
	}
	value := make(map[uint]uint64)
	for _, a := range got {
		b := make([]byte, 8) // CK_ULONG and CK_BBOOL in the order of the host
		copy(b, a.Value)
		value[a.Type] = binary.NativeEndian.Uint64(b)
		if len(a.Value) > 8 || len(a.Value) == 0 {
			return errors.New("the token describes the key in no way that can be read")
		}
	}
	switch kind := value[pkcs11.CKA_KEY_TYPE]; {
	case p.class == pkcs11.CKO_SECRET_KEY && (kind != pkcs11.CKK_AES || value[pkcs11.CKA_VALUE_LEN] != 32):
		return errors.New("the key is not an AES key of 256 bits")
	case p.class == pkcs11.CKO_PRIVATE_KEY && kind != pkcs11.CKK_EC && kind != ckkEdwards:
		return errors.New("the key is neither ECDSA nor Ed25519")
	case value[pkcs11.CKA_SENSITIVE] == 0 || value[pkcs11.CKA_EXTRACTABLE] != 0:
		return errors.New("the key could be read out of the token; want one that is sensitive and not extractable")
	}
	return nil
}
