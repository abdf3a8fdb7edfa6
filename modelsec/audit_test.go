// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// auditor keeps the events, and may fail some.
type auditor struct {
	mu     sync.Mutex
	events []modelsec.Event
	fails  func(modelsec.Event) error
	record func(modelsec.Event) // sees each before it is kept
}

func (a *auditor) audit(_ context.Context, e modelsec.Event) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.record != nil {
		a.record(e)
	}
	a.events = append(a.events, e)
	if a.fails != nil {
		return a.fails(e)
	}
	return nil
}

func (a *auditor) all() []modelsec.Event {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// open returns the intents without an outcome, by operation and id. An outcome
// without an intent is an error, unless the operation has none.
func (a *auditor) open(t *testing.T) (left []string) {
	t.Helper()
	for _, e := range a.all() {
		name := e.Op + " " + e.ID + " " + e.File
		switch e.Phase {
		case "intent":
			left = append(left, name)
		case "outcome":
			if i := slices.Index(left, name); i >= 0 {
				left = slices.Delete(left, i, i+1)
			} else {
				t.Errorf("outcome without intent: %+v", e)
			}
		}
		if e.ID == "" || e.Op == "" || e.Ref == "" || e.Time.IsZero() || e.Digest == "" {
			t.Errorf("an event lacks a field: %+v", e)
		}
	}
	return left
}

// phases lists the events as "op phase".
func (a *auditor) phases() (out []string) {
	for _, e := range a.all() {
		out = append(out, e.Op+" "+e.Phase)
	}
	return out
}

func audited(p *party, o registry.Opener) (*modelsec.Client, *auditor) {
	a := &auditor{}
	c := p.client(o)
	c.Hooks.Audit = a.audit
	return c, a
}

// TestAuditOfAPull is K43 and K44: what an auditor reads about one pull.
func TestAuditOfAPull(t *testing.T) {
	p := newParty(t)
	src := large()
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, src, options())
			c, a := audited(p, memory)
			dir := filepath.Join(t.TempDir(), "model")
			if _, err := c.Pull(t.Context(), tagged, dir, p.policy(), nil); err != nil {
				t.Fatal(err)
			}
			want := []string{"pull decision", "pull intent", "pull outcome"}
			if name == "encrypted" {
				want = []string{"pull decision", "pull intent", "pull outcome", "pull intent", "pull outcome"}
			}
			if got := a.phases(); !slices.Equal(got, want) {
				t.Fatalf("got %q, want %q", got, want)
			}
			if left := a.open(t); len(left) > 0 {
				t.Errorf("without outcome: %q", left)
			}
			last := a.all()[len(a.events)-1]
			if !strings.Contains(last.Reason, "plaintext to "+dir) || last.Bytes != sizeOf(src) || last.Digest != d.Digest || !last.Allowed {
				t.Errorf("the outcome says %+v, want %d bytes of plaintext to %s", last, sizeOf(src), dir)
			}
			if e := a.all()[2]; name == "encrypted" && e.KeyID == "" {
				t.Errorf("no key id in %+v", e)
			}
		})
	}
}

func sizeOf(src fs.FS) (n int64) {
	fs.WalkDir(src, ".", func(_ string, d fs.DirEntry, _ error) error {
		if info, err := d.Info(); err == nil && !d.IsDir() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// TestAuditCountsBytesOnce: comparing whole layers first is no delivery.
func TestAuditCountsBytesOnce(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := large()
	push(t, p.client(memory), tagged, src, p.options(nil))
	c, a := audited(p, memory)
	last := lastProgress(c)
	policy := p.policy()
	policy.Rules[0].CompareLayerDigests = true
	if _, err := c.Pull(t.Context(), tagged, filepath.Join(t.TempDir(), "model"), policy, nil); err != nil {
		t.Fatal(err)
	}
	if e := a.all()[len(a.events)-1]; e.Bytes != sizeOf(src) {
		t.Errorf("the outcome says %d bytes, want %d", e.Bytes, sizeOf(src))
	}
	if !last.Final || last.Done != sizeOf(src) || last.Total != sizeOf(src) {
		t.Errorf("progress ends with %+v, want %d bytes", last, sizeOf(src))
	}
}

// TestNoKeyIsUsedBeforeItIsRecorded is K44: an audit hook that fails keeps the
// identity from being asked, and any byte from being delivered.
func TestNoKeyIsUsedBeforeItIsRecorded(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, small(), p.options(p.recipients()))
	down := errors.New("collector down")
	for _, phase := range []string{"decision", "intent"} {
		c, a := audited(p, memory)
		a.fails = func(e modelsec.Event) error {
			if e.Phase == phase {
				return down
			}
			return nil
		}
		id := &service{Identity: p.identity}
		c.Identities = []encrypt.Identity{id}
		err := pullFails(t, c, tagged, p.policy(), modelsec.ErrAudit)
		if !errors.Is(err, down) || id.calls.Load() != 0 {
			t.Errorf("%s: got %v, and the identity was called %d times", phase, err, id.calls.Load())
		}
	}
	for _, options := range p.profiles() {
		push(t, p.client(memory), tagged, small(), options())
		c, a := audited(p, memory)
		a.fails = func(e modelsec.Event) error {
			if e.Phase == "intent" && strings.Contains(e.Reason, "plaintext") {
				return down
			}
			return nil
		}
		base := t.TempDir()
		_, err := c.Pull(t.Context(), tagged, filepath.Join(base, "model"), p.policy(), nil)
		refused(t, err, modelsec.ErrAudit)
		nothingIn(t, base)
	}
}

// TestEveryIntentHasAnOutcome: also where the operation fails or is cancelled,
// and where bytes are read through handles.
func TestEveryIntentHasAnOutcome(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	src := large()
	d := push(t, p.client(memory), tagged, src, p.options(p.recipients()))
	m := openShelf(t, memory, repository).manifest(d)

	t.Run("Failed", func(t *testing.T) {
		inBubble(t, func(t *testing.T) {
			c, a := audited(p, flipping(memory, m.Layers[0].Digest))
			pullFails(t, c, tagged, p.policy(), modelsec.ErrDigest)
			outcomes(t, a, 2, false)
		})
	})
	t.Run("NoKey", func(t *testing.T) {
		c, a := audited(p, memory)
		c.Identities = nil
		pullFails(t, c, tagged, p.policy(), modelsec.ErrNoKey)
		outcomes(t, a, 1, false)
	})
	t.Run("Cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		blocked := &evil{Opener: memory, before: func(ctx context.Context, op, on string) error {
			if op == "fetch" && on == string(m.Layers[0].Digest) {
				cancel()
				return ctx.Err()
			}
			return nil
		}}
		c, a := audited(p, blocked)
		_, err := c.Pull(ctx, tagged, filepath.Join(t.TempDir(), "model"), p.policy(), nil)
		refused(t, err, context.Canceled)
		outcomes(t, a, 2, false)
	})
	t.Run("Handles", func(t *testing.T) {
		c, a := audited(p, memory)
		model, err := c.Open(t.Context(), tagged, p.policy())
		if err != nil {
			t.Fatal(err)
		}
		r, err := model.ReaderAt(t.Context(), "model.safetensors")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyN(io.Discard, r, 1000); err != nil {
			t.Fatal(err)
		}
		if _, err := fs.ReadFile(model.FS(t.Context()), "config.json"); err != nil {
			t.Fatal(err)
		}
		if err := model.Close(); err != nil {
			t.Fatal(err)
		}
		outcomes(t, a, 3, true)
		var bytes int64
		for _, e := range a.all() {
			if e.File != "" && e.Phase == "outcome" {
				bytes += e.Bytes
			}
		}
		if want := int64(1000 + len(src["config.json"].Data)); bytes < want || bytes > want+segment {
			t.Errorf("the outcomes say that %d bytes were delivered, want about %d", bytes, want)
		}
	})
}

// outcomes demands as many outcomes, none missing, and how the last one reads.
func outcomes(t *testing.T, a *auditor, want int, allowed bool) {
	t.Helper()
	if left := a.open(t); len(left) > 0 {
		t.Errorf("without outcome: %q", left)
	}
	n := 0
	var last modelsec.Event
	for _, e := range a.all() {
		if e.Phase == "outcome" {
			n++
			last = e
		}
	}
	if n != want || last.Allowed != allowed || !allowed && last.Reason == "" {
		t.Errorf("%d outcomes, want %d; the last says %+v", n, want, last)
	}
}

// flipping is a registry that damages one blob for ever.
func flipping(o registry.Opener, blob digest.Digest) *evil {
	return &evil{Opener: o, content: func(d ocispec.Descriptor, b []byte) []byte {
		if d.Digest == blob {
			b = bytes.Clone(b)
			b[len(b)/2] ^= 1
		}
		return b
	}}
}
