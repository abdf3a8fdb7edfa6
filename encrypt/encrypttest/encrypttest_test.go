// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypttest_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// TestRun runs the suite over a provider without a fault, or with the one that
// the environment names for the sake of [TestRunFinds].
func TestRun(t *testing.T) {
	defect := os.Getenv("MODELSEC_DEFECT")
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		s := &service{token: "a token of the test"}
		ours, theirs := &provider{s, "ours", defect}, &provider{s, "theirs", defect}
		p := encrypttest.Pair{
			Recipient: ours, Identity: ours, Stranger: theirs, Binds: true,
			Secrets:  [][]byte{[]byte(s.token)},
			Requests: func() int { s.mu.Lock(); defer s.mu.Unlock(); return s.requests },
			Service: encrypttest.Service{
				Disable:  s.enter(encrypt.ErrDisabled),
				Deny:     s.enter(encrypt.ErrDenied),
				Throttle: s.enter(encrypt.ErrThrottled),
				Fail:     s.enter(encrypt.ErrUnavailable),
				Quote:    s.enter(errQuote),
				Stall:    s.enter(errStall),
				Heal:     s.enter(nil),
			},
		}
		switch defect {
		case "NoHook":
			p.Service.Stall = nil
		case "LocalWithHooks":
			p.Local = true
		}
		return p
	})
}

// TestRunFinds runs the suite over providers with one fault each: a suite that
// finds none of them proves nothing about those that pass.
func TestRunFinds(t *testing.T) {
	for defect, want := range map[string]string{
		"":                 "",
		"NoHook":           "Service.Stall must be set",
		"LocalWithHooks":   "makes no requests",
		"NoCallsOut":       "TestRun/Abilities",
		"OneKeyID":         "TestRun/StanzaFitsTheFormat",
		"NoKeyIDCheck":     "TestRun/ForeignStanzaIsNotMine",
		"AsksForForeign":   "TestRun/ForeignStanzaIsNotMine",
		"BindsNothing":     "TestRun/AnotherBindingFails",
		"ScribblesOnKey":   "TestRun/KeysStayUntouched",
		"TamperedIsDenied": "TestRun/TamperedBodyFails",
		"IgnoresCancelled": "TestRun/Cancelled",
		"PrintsToken":      "TestRun/Redacted",
		"LogsKey":          "TestRun/Redacted",
		"QuotesService":    "TestRun/Service/RequestQuoted",
		"Untyped":          "TestRun/Service/KeyDisabled",
		"Retries":          "TestRun/Service/Throttled",
		"StaysBroken":      "TestRun/Service/Unavailable",
		"HidesDeadline":    "TestRun/Service/TimesOut",
	} {
		t.Run("defect"+defect, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.run=^TestRun$")
			cmd.Env = append(os.Environ(), "MODELSEC_DEFECT="+defect, "GORACE=atexit_sleep_ms=0")
			out, err := cmd.CombinedOutput()
			if defect == "" {
				if err != nil {
					t.Errorf("without a defect: %v\n%s", err, out)
				}
				return
			}
			if err == nil || !strings.Contains(string(out), want) {
				t.Errorf("error %v, output without %q:\n%s", err, want, out)
			}
		})
	}
}

// service keeps two keys and is in one state.
type service struct {
	token    string
	mu       sync.Mutex
	state    error
	healed   chan struct{}
	requests int
	broken   bool // for good
}

var (
	errQuote = errors.New("quote")
	errStall = errors.New("stall")
)

func (s *service) enter(state error) func(*testing.T) {
	return func(*testing.T) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.healed != nil {
			close(s.healed)
			s.healed = nil
		}
		if state != nil {
			s.healed = make(chan struct{})
		}
		s.state = state
	}
}

// request is what the wire would carry: it returns the text of a refusal.
func (s *service) request(ctx context.Context, body []byte) (text string, err error) {
	s.mu.Lock()
	s.requests++
	state, healed := s.state, s.healed
	s.mu.Unlock()
	switch state {
	case nil:
		return "", nil
	case errQuote:
		return fmt.Sprintf("bad request %x with %s", body, s.token), errQuote
	case errStall:
		select {
		case <-healed:
		case <-ctx.Done():
		}
		return "", ctx.Err()
	}
	return "refused", state
}

// provider is a Recipient and an Identity, with a defect or none.
type provider struct {
	service *service
	key     string
	defect  string
}

func (p *provider) has(defect string) bool { return p.defect == defect }

func (p *provider) CallsOut() bool { return !p.has("NoCallsOut") }

func (p *provider) KeyID(b encrypt.Binding) string {
	if p.has("OneKeyID") {
		b = encrypt.Binding{}
	}
	return b.KeyID("test", []byte(p.key))
}

func (p *provider) Format(f fmt.State, _ rune) {
	if p.has("PrintsToken") {
		fmt.Fprint(f, p.service.token)
	}
}

func (p *provider) call(ctx context.Context, body []byte) error {
	if err := ctx.Err(); err != nil && !p.has("IgnoresCancelled") {
		return err
	}
	if p.has("LogsKey") {
		slog.Debug("request", "body", fmt.Sprintf("%x", body))
	}
	text, err := p.service.request(ctx, body)
	for range 3 {
		if err != nil && p.has("Retries") {
			text, err = p.service.request(ctx, body)
		}
	}
	switch {
	case err != nil && p.has("StaysBroken"):
		p.service.broken = true
	case p.service.broken:
		return encrypt.ErrUnavailable
	}
	switch {
	case err == nil:
		return nil
	case p.has("QuotesService"):
		return fmt.Errorf("service: %s: %w", text, err)
	case p.has("Untyped"), p.has("HidesDeadline") && ctx.Err() != nil:
		return errors.New("service: refused")
	}
	return fmt.Errorf("service: %w", err)
}

func (p *provider) aead() cipher.AEAD {
	block, err := aes.NewCipher([]byte(fmt.Sprintf("%-32s", p.key)))
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (p *provider) context(b encrypt.Binding) []byte {
	if p.has("BindsNothing") {
		return nil
	}
	return b.Context()
}

func (p *provider) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := p.call(ctx, key); err != nil {
		return encrypt.Stanza{}, err
	}
	body := p.aead().Seal(nil, nil, key, p.context(b))
	if p.has("ScribblesOnKey") {
		clear(key)
	}
	return encrypt.Stanza{Type: "test", KeyID: p.KeyID(b), Body: body}, nil
}

func (p *provider) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	foreign := s.Type != "test" || s.KeyID != p.KeyID(b) && !p.has("NoKeyIDCheck")
	if foreign && !p.has("AsksForForeign") {
		return nil, encrypt.ErrNotMine
	}
	if err := p.call(ctx, slices.Concat(s.Body)); err != nil {
		return nil, err
	}
	if foreign {
		return nil, encrypt.ErrNotMine
	}
	out, err := p.aead().Open(nil, nil, s.Body, p.context(b))
	if err != nil && p.has("TamperedIsDenied") {
		return nil, encrypt.ErrDenied
	} else if err != nil {
		return nil, encrypt.ErrDecrypt
	}
	return out, nil
}
