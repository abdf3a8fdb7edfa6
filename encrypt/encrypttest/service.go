// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypttest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
)

// A Service is what the Recipient and the Identity of a [Pair] call, as far as
// the suite brings it into one state after the other. A state holds for Wrap and
// Unwrap, from the call of its function until Heal. Every function must be set;
// one whose state the mechanism cannot be in is named in Without instead.
type Service struct {
	// Disable leaves the key where it is and usable by nobody: a call is
	// [encrypt.ErrDisabled].
	Disable func(t *testing.T)
	// Deny takes the right to use the key from the caller: a call is
	// [encrypt.ErrDenied].
	Deny func(t *testing.T)
	// Throttle makes the service refuse because it is asked too often: a call
	// is [encrypt.ErrThrottled].
	Throttle func(t *testing.T)
	// Fail makes the service blame itself or be unreachable: a call is
	// [encrypt.ErrUnavailable].
	Fail func(t *testing.T)
	// Quote makes the service refuse for any reason, in words that quote the
	// request in full, credentials and the bytes to wrap included.
	Quote func(t *testing.T)
	// Stall makes the service take requests and answer none. Heal ends those
	// that wait.
	Stall func(t *testing.T)
	// Heal makes all well again, also where it is called twice.
	Heal func(t *testing.T)
	// Without holds, by the name of the function, why the mechanism has no such
	// state: "Throttle": "a token in a slot counts no requests".
	Without map[string]string
}

// state is one way for a service to be.
type state struct {
	name  string // of the test
	field string // of Service
	enter func(Service) func(*testing.T)
	want  error // nil: any
}

var states = []state{
	{"KeyDisabled", "Disable", func(s Service) func(*testing.T) { return s.Disable }, encrypt.ErrDisabled},
	{"CallerDenied", "Deny", func(s Service) func(*testing.T) { return s.Deny }, encrypt.ErrDenied},
	{"Throttled", "Throttle", func(s Service) func(*testing.T) { return s.Throttle }, encrypt.ErrThrottled},
	{"Unavailable", "Fail", func(s Service) func(*testing.T) { return s.Fail }, encrypt.ErrUnavailable},
	{"RequestQuoted", "Quote", func(s Service) func(*testing.T) { return s.Quote }, nil},
	{"TimesOut", "Stall", func(s Service) func(*testing.T) { return s.Stall }, context.DeadlineExceeded},
	{"CancelledMidway", "Stall", func(s Service) func(*testing.T) { return s.Stall }, context.Canceled},
}

// check fails the test where a function is missing without a reason.
func (s Service) check(t *testing.T, local bool) {
	t.Helper()
	for _, state := range states {
		set, reason := state.enter(s) != nil, s.Without[state.field]
		switch {
		case local && (set || reason != ""):
			t.Fatalf("a local pair has no service: Service.%s must not be set", state.field)
		case !local && set == (reason != ""):
			t.Fatalf("Service.%s must be set, or Without must say why the mechanism has no such state", state.field)
		}
	}
	if !local && s.Heal == nil {
		t.Fatal("Service.Heal must be set")
	}
}

const (
	// patience is how long a call may take before the test calls it stuck.
	patience = time.Minute
	// soon is when a call to a stalled service ends. Whether it ended before or
	// while it was under way, the error is the same.
	soon = 200 * time.Millisecond
	// maxRequests bounds one call: the request, a login, the request again.
	// Repeating after a failure is for package encrypt.
	maxRequests = 3
)

// testState wraps and unwraps while the service is in a state, and after it.
func testState(t *testing.T, p Pair, s state) {
	if reason := p.Service.Without[s.field]; reason != "" {
		t.Logf("no such state: %s", reason)
		return
	}
	w := watch(t, p)
	payload, b := w.payload(t)
	stanza, err := p.Recipient.Wrap(t.Context(), bytes.Clone(payload), b)
	if err != nil {
		t.Fatalf("wrap: %v", err)
	}
	stanza.Scope, stanza.NotAfter = encrypt.ScopeArtifact, b.NotAfter

	s.enter(p.Service)(t)
	defer p.Service.Heal(t) // also where the test ends early
	other, b2 := w.payload(t)
	for what, call := range map[string]func(context.Context) error{
		"wrap":   func(ctx context.Context) error { _, err := p.Recipient.Wrap(ctx, bytes.Clone(other), b2); return err },
		"unwrap": func(ctx context.Context) error { _, err := p.Identity.Unwrap(ctx, stanza, b.For(stanza)); return err },
	} {
		before := p.Requests()
		err := bounded(t, s.want, what, call)
		if err == nil {
			t.Errorf("%s: no error", what)
			continue
		}
		if s.want != nil && !errors.Is(err, s.want) || errors.Is(err, encrypt.ErrNotMine) {
			t.Errorf("%s: error %v, want %v", what, err, s.want)
		}
		if what == "wrap" && errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("wrap: error %v, and there is nothing to decrypt", err)
		}
		for _, other := range []error{encrypt.ErrDisabled, encrypt.ErrDenied, encrypt.ErrThrottled} {
			if s.want != nil && s.want != other && errors.Is(err, other) {
				t.Errorf("%s: error %v is also %v", what, err, other)
			}
		}
		if n := p.Requests() - before; n > maxRequests {
			t.Errorf("%s: %d requests in one call, want at most %d", what, n, maxRequests)
		}
		w.error(t, what, err)
	}
	p.Service.Heal(t)
	got, err := p.Identity.Unwrap(t.Context(), stanza, b.For(stanza))
	if err != nil || !bytes.Equal(got, payload) {
		t.Errorf("unwrap after all is well again: %d bytes, error %v", len(got), err)
	}
	if _, err := p.Recipient.Wrap(t.Context(), bytes.Clone(payload), b); err != nil {
		t.Errorf("wrap after all is well again: %v", err)
	}
	w.logs(t)
}

// bounded makes one call under the context that brings about want.
func bounded(t *testing.T, want error, what string, call func(context.Context) error) error {
	t.Helper()
	limit := patience
	if want == context.DeadlineExceeded {
		limit = soon
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if want == context.Canceled {
		defer time.AfterFunc(soon, cancel).Stop()
	}
	done := make(chan error, 1)
	go func() { done <- call(ctx) }()
	select {
	case err := <-done:
		return err
	case <-time.After(limit + patience):
		t.Fatalf("%s does not end with its context", what)
		return nil
	}
}
