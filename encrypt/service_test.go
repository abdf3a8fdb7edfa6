// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// service is a key service: it answers by script, then works.
type service struct {
	raw
	name    string
	script  []error
	hangs   bool // answers nothing until it is given up
	timeout time.Duration
	log     *[]string
}

func (s *service) CallsOut() bool         { return true }
func (s *service) Timeout() time.Duration { return s.timeout }

func (s *service) answer(ctx context.Context) error {
	*s.log = append(*s.log, s.name)
	if s.hangs {
		<-ctx.Done()
		return errors.New("the connection was closed") // without a word of why
	}
	if len(s.script) == 0 {
		return nil
	}
	err := s.script[0]
	s.script = s.script[1:]
	return err
}

func (s *service) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := s.answer(ctx); err != nil {
		return encrypt.Stanza{}, err
	}
	return s.raw.Wrap(ctx, key, b)
}

func (s *service) Unwrap(ctx context.Context, stanza encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if err := s.answer(ctx); err != nil {
		return nil, err
	}
	return s.raw.Unwrap(ctx, stanza, b)
}

var (
	errDown     = fmt.Errorf("%w: status 503", encrypt.ErrUnavailable)
	errBusy     = fmt.Errorf("%w: status 429", encrypt.ErrThrottled)
	errDenied   = fmt.Errorf("%w: status 403", encrypt.ErrDenied)
	errDisabled = fmt.Errorf("%w: pending destruction", encrypt.ErrDisabled)
)

// ask unwraps one entry with the services, on a clock of its own, and returns
// who was asked in which order and how long that took.
func ask(t *testing.T, entries int, services ...*service) (log []string, took time.Duration, err error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		key, b := encrypttest.NewBinding(t)
		stanzas, werr := encrypt.WrapKey(t.Context(), key, b, raw{})
		if werr != nil {
			t.Fatal(werr)
		}
		var ids []encrypt.Identity
		for _, s := range services {
			s.log = &log
			ids = append(ids, s)
		}
		start := time.Now()
		var got *encrypt.Key
		if got, err = encrypt.UnwrapKey(t.Context(), slices.Repeat(stanzas, entries), b, now, ids...); err == nil {
			got.Close()
		}
		took = time.Since(start)
	})
	return log, took, err
}

// TestOutageFallsThroughBeforeItIsRetried: who is down is asked again only
// after everybody else was asked.
func TestOutageFallsThroughBeforeItIsRetried(t *testing.T) {
	for _, outage := range []error{errDown, errBusy} {
		log, took, err := ask(t, 1, &service{name: "a", script: []error{outage}}, &service{name: "b"})
		if err != nil || !slices.Equal(log, []string{"a", "b"}) || took != 0 {
			t.Errorf("%v: asked %v in %v, error %v", outage, log, took, err)
		}
		log, took, err = ask(t, 1, &service{name: "a", script: []error{outage, outage}}, &service{name: "b", script: []error{errDenied}})
		if err != nil || !slices.Equal(log, []string{"a", "b", "a", "a"}) || took > 5*time.Second {
			t.Errorf("%v, then denied: asked %v in %v, error %v", outage, log, took, err)
		}
	}
}

// TestSilentServiceIsGivenUp: a service that hangs costs ten seconds, not the
// operation.
func TestSilentServiceIsGivenUp(t *testing.T) {
	log, took, err := ask(t, 1, &service{name: "a", hangs: true}, &service{name: "b"})
	if err != nil || took != 10*time.Second || !slices.Equal(log, []string{"a", "b"}) {
		t.Errorf("asked %v in %v, error %v", log, took, err)
	}
	_, took, err = ask(t, 1, &service{name: "a", hangs: true})
	if !errors.Is(err, encrypt.ErrUnavailable) || !errors.Is(err, encrypt.ErrNoKey) || took > 40*time.Second {
		t.Errorf("alone: error %v after %v, want ErrUnavailable", err, took)
	}
	var temporary interface{ Temporary() bool }
	if !errors.As(err, &temporary) || !temporary.Temporary() {
		t.Error("an outage is not temporary")
	}
	for asked, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, time.Hour: 2 * time.Minute, -1: 10 * time.Second} {
		if _, took, err = ask(t, 1, &service{name: "a", hangs: true, timeout: asked}, &service{name: "b"}); err != nil || took != want {
			t.Errorf("a timeout of %v: took %v, error %v", asked, took, err)
		}
	}
}

// TestDeniedKeyIsNotRetried, and not asked about other entries that bear its
// key id.
func TestDeniedKeyIsNotRetried(t *testing.T) {
	for _, refusal := range []error{errDenied, errDisabled} {
		log, took, err := ask(t, 3, &service{name: "a", script: []error{refusal}})
		if !errors.Is(err, refusal) || !errors.Is(err, encrypt.ErrNoKey) || len(log) != 1 || took != 0 {
			t.Errorf("%v: asked %v in %v, error %v", refusal, log, took, err)
		}
		var temporary interface{ Temporary() bool }
		if errors.As(err, &temporary) && temporary.Temporary() {
			t.Errorf("%v is temporary", refusal)
		}
	}
}

// TestRoundsShareOneBoundOfCalls: retries do not add to the four of K14.
func TestRoundsShareOneBoundOfCalls(t *testing.T) {
	log, _, err := ask(t, 10, &service{name: "a", script: []error{encrypt.ErrDecrypt, encrypt.ErrDecrypt, errDown, errDown, errDown}})
	if len(log) != 4 || !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("asked %d times, error %v", len(log), err)
	}
	log, _, _ = ask(t, 10, &service{name: "a", script: slices.Repeat([]error{errDown}, 10)})
	if len(log) != 3 {
		t.Errorf("a service that is down was asked %d times, want 3", len(log))
	}
}

// TestCancelledWhileWaiting: the pause before another round ends with ctx.
func TestCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key, b := encrypttest.NewBinding(t)
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, raw{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		start := time.Now()
		var log []string
		_, err = encrypt.UnwrapKey(ctx, stanzas, b, now, &service{name: "a", script: []error{errDown}, log: &log})
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, encrypt.ErrNoKey) || time.Since(start) != 100*time.Millisecond {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
	})
}

// TestWrapIsRepeatedWhereItFailedForNow, and given up in bounded time.
func TestWrapIsRepeatedWhereItFailedForNow(t *testing.T) {
	for _, test := range []struct {
		script []error
		hangs  bool
		calls  int
		want   error
	}{
		{script: []error{errBusy, errDown}, calls: 3},
		{script: []error{errDown, errDown, errDown}, calls: 3, want: encrypt.ErrUnavailable},
		{script: []error{errDenied}, calls: 1, want: encrypt.ErrDenied},
		{hangs: true, calls: 3, want: encrypt.ErrUnavailable},
	} {
		synctest.Test(t, func(t *testing.T) {
			key, b := encrypttest.NewBinding(t)
			var log []string
			start := time.Now()
			_, err := encrypt.WrapKey(t.Context(), key, b, &service{script: test.script, hangs: test.hangs, log: &log})
			if !errors.Is(err, test.want) || len(log) != test.calls || time.Since(start) > 40*time.Second {
				t.Errorf("%v: %d calls in %v, error %v, want %v", test.script, len(log), time.Since(start), err, test.want)
			}
		})
	}
}

// TestUnwrapAsksForTheWholeFirst: entries for the whole artifact come before
// those for files, further ones are asked for until take has enough, and all of
// them count towards the four calls of K14.
func TestUnwrapAsksForTheWholeFirst(t *testing.T) {
	key, b := encrypttest.NewBinding(t)
	files := func(layer uint32) encrypt.Stanza {
		s, err := encrypt.WrapFiles(t.Context(), key, b, []byte(filesJSON), []uint32{layer}, raw{})
		if err != nil {
			t.Fatal(err)
		}
		return s[0]
	}
	whole, err := encrypt.WrapKey(t.Context(), key, b, raw{})
	if err != nil {
		t.Fatal(err)
	}
	entries := []encrypt.Stanza{files(1), files(2), whole[0], files(3), files(4), files(5)}
	for _, test := range []struct {
		enough int
		want   string
	}{{1, "all"}, {2, "all 1"}, {4, "all 1 2 3"}, {5, "all 1 2 3"}} {
		var log []string
		got := ""
		err := encrypt.Unwrap(t.Context(), entries, b, now, func(k encrypt.PartKeys, s encrypt.Stanza) bool {
			defer k.Close()
			if f, ok := k.(*encrypt.FileKeys); ok {
				got += fmt.Sprint(" ", f.Layers()[0])
			} else {
				got += "all"
			}
			if s.Type != "raw" {
				t.Errorf("entry %v", s)
			}
			test.enough--
			return test.enough == 0
		}, &service{log: &log})
		if got != test.want || (test.enough == 0) != (err == nil) || err != nil && !errors.Is(err, encrypt.ErrNoKey) {
			t.Errorf("got %q with %d more wanted, error %v, want %q", got, test.enough, err, test.want)
		}
	}
}
