// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypttest

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
)

// testRedacted is the promise that keys and credentials stay out of what is
// printed, when all goes well and when a stanza does not authenticate.
func testRedacted(t *testing.T, p Pair) {
	w := watch(t, p)
	payload, b := w.payload(t)
	s, err := p.Recipient.Wrap(t.Context(), bytes.Clone(payload), b)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	s.Scope, s.NotAfter = encrypt.ScopeArtifact, b.NotAfter
	if _, err := p.Identity.Unwrap(t.Context(), s, b.For(s)); err != nil {
		t.Fatalf("unwrap: %v", err)
	}
	w.text(t, "the stanza", fmt.Sprintf("%q %q %q", s.KeyID, s.Params, s.Body))
	s.Body = bytes.Clone(s.Body)
	s.Body[len(s.Body)-1] ^= 1
	_, failed := p.Identity.Unwrap(t.Context(), s, b.For(s))
	w.error(t, "a tampered stanza", failed)
	for who, v := range map[string]any{"identity": p.Identity, "recipient": p.Recipient, "stranger": p.Stranger} {
		asJSON, _ := json.Marshal(v)
		w.text(t, "the "+who+" as JSON", string(asJSON))
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			w.text(t, "the "+who+" with "+verb, fmt.Sprintf(verb, v))
		}
	}
	w.logs(t)
}

// A watcher looks for secrets in what a test sees and what is logged.
type watcher struct {
	p       Pair
	secrets [][]byte
	mu      sync.Mutex
	logged  bytes.Buffer // of the default logger
}

// watch takes the place of the default logger until the test ends.
func watch(t *testing.T, p Pair) *watcher {
	w := &watcher{p: p, secrets: p.Secrets}
	before, writer, flags := slog.Default(), log.Writer(), log.Flags()
	slog.SetDefault(slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug - 8})))
	t.Cleanup(func() {
		slog.SetDefault(before)
		log.SetOutput(writer)
		log.SetFlags(flags)
	})
	return w
}

// Write keeps a line of the default logger.
func (w *watcher) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.logged.Write(b)
}

// payload returns bytes to wrap whose key is watched from now on.
func (w *watcher) payload(t *testing.T) ([]byte, encrypt.Binding) {
	_, b := NewBinding(t)
	payload := make([]byte, 128)
	rand.Read(payload)
	w.secrets = append(w.secrets, bytes.Clone(payload[96:]))
	return payload, b
}

// error looks at err, and at every error that it wraps.
func (w *watcher) error(t *testing.T, where string, err error) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v"} {
		w.text(t, "the error of "+where+" with "+verb, fmt.Sprintf(verb, err))
	}
	if text := fmt.Sprint(err); len(text) > 4<<10 {
		t.Errorf("the error of %s has %d bytes", where, len(text))
	}
	switch e := err.(type) {
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			w.error(t, where, inner)
		}
	default:
		if inner := errors.Unwrap(err); inner != nil {
			w.error(t, where, inner)
		}
	}
}

// logs looks at everything that was logged so far.
func (w *watcher) logs(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	text := w.logged.String()
	w.mu.Unlock()
	w.text(t, "the default logger", text)
	w.text(t, "the log of the provider", w.p.Logged())
}

func (w *watcher) text(t *testing.T, where, text string) {
	t.Helper()
	for _, secret := range w.secrets {
		for _, form := range forms(secret) {
			if strings.Contains(text, form) {
				t.Errorf("%s shows a secret", where)
				return
			}
		}
	}
}

// forms returns how secret may look in a text, also as a part of something
// longer that was encoded.
func forms(secret []byte) []string {
	lower := hex.EncodeToString(secret)
	forms := []string{string(secret), lower, strings.ToUpper(lower), fmt.Sprint(secret), fmt.Sprintf("%#v", secret), strings.Trim(fmt.Sprintf("%q", secret), `"`)}
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := enc.EncodeToString(append(make([]byte, before), secret...))
			// The first and the last digits depend on the neighbours.
			from, to := (before*8+5)/6, (before+len(secret))*8/6
			forms = append(forms, text[from:to])
		}
	}
	return forms
}
