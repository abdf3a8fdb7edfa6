// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/opencontainers/go-digest"
)

var now = encrypttest.Now

// mustWrap wraps a fresh key for the public halves of ids.
func mustWrap(t testing.TB, ids ...*encrypt.HPKEIdentity) ([]encrypt.Stanza, *encrypt.Key, encrypt.Binding) {
	t.Helper()
	key, b := encrypttest.NewBinding(t)
	var recipients []encrypt.Recipient
	for _, id := range ids {
		recipients = append(recipients, id.Recipient())
	}
	stanzas, err := encrypt.WrapKey(context.Background(), key, b, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	return stanzas, key, b
}

// TestGrantIsBoundToItsManifest is K1: the same ciphertext, artifactId,
// commitment and grant under another manifest do not open.
func TestGrantIsBoundToItsManifest(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	stanzas, _, b := mustWrap(t, id)
	b.Manifest = digest.FromString("the thief's manifest")
	if _, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, id); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("error %v, want ErrNoKey", err)
	}
}

// raw is a mechanism without associated data, such as some key services have.
// It "wraps" by copying, which leaves all binding to the payload.
type raw struct {
	payload func([]byte) // changes what is wrapped
	result  error
	calls   *int
	out     bool // says that it calls out
}

func (r raw) Wrap(_ context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	body := append([]byte(nil), key...)
	if r.payload != nil {
		r.payload(body)
	}
	return encrypt.Stanza{Type: "raw", KeyID: b.KeyID("raw", nil), Body: body}, nil
}

func (r raw) Unwrap(_ context.Context, s encrypt.Stanza, _ encrypt.Binding) ([]byte, error) {
	if s.Type != "raw" {
		return nil, encrypt.ErrNotMine
	}
	if r.calls != nil {
		*r.calls++
	}
	return append([]byte(nil), s.Body...), r.result
}

func (r raw) CallsOut() bool { return r.out }

// TestPayloadIsComparedInFull: whatever a mechanism binds by itself, every byte
// before the key is compared (FORMAT.md §8.2).
func TestPayloadIsComparedInFull(t *testing.T) {
	for at := range 128 {
		key, b := encrypttest.NewBinding(t)
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, raw{payload: func(p []byte) { p[at] ^= 1 }})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, raw{}); !errors.Is(err, encrypt.ErrKeyMismatch) {
			t.Errorf("byte %d of the payload changed: error %v, want ErrKeyMismatch", at, err)
		}
		key.Close()
	}
	for _, n := range []int{0, 96, 127, 129} {
		key, b := encrypttest.NewBinding(t)
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, raw{})
		if err != nil {
			t.Fatal(err)
		}
		stanzas[0].Body = append(stanzas[0].Body, 0)[:n]
		if _, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, raw{}); !errors.Is(err, encrypt.ErrKeyMismatch) {
			t.Errorf("payload of %d bytes: error %v, want ErrKeyMismatch", n, err)
		}
	}
}

// TestScopeAndExpiryAreInsideTheWrap is K15: the clear entry cannot be edited.
func TestScopeAndExpiryAreInsideTheWrap(t *testing.T) {
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, raw{})
	if err != nil {
		t.Fatal(err)
	}
	later := stanzas[0]
	later.NotAfter = later.NotAfter.Add(time.Hour)
	if _, err := encrypt.UnwrapKey(t.Context(), []encrypt.Stanza{later}, b, now, raw{}); !errors.Is(err, encrypt.ErrKeyMismatch) {
		t.Errorf("later expiry: error %v, want ErrKeyMismatch", err)
	}
	files := stanzas[0]
	files.Scope, files.Sealed = encrypt.ScopeFiles, []byte{1}
	if _, err := unwrapFiles(t, []encrypt.Stanza{files}, b, now, raw{}); !errors.Is(err, encrypt.ErrKeyMismatch) {
		t.Errorf("another scope: error %v, want ErrKeyMismatch", err)
	}
	if _, err := encrypt.UnwrapKey(t.Context(), []encrypt.Stanza{files}, b, now, raw{}); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("a stanza of scope files: error %v, want ErrNoKey", err)
	}
}

func TestExpiredGrant(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	stanzas, _, b := mustWrap(t, id)
	for _, test := range []struct {
		after time.Duration
		want  error
	}{{-time.Second, nil}, {0, nil}, {999 * time.Millisecond, nil}, {time.Second, encrypt.ErrExpired}, {24 * 365 * time.Hour, encrypt.ErrExpired}} {
		key, err := encrypt.UnwrapKey(t.Context(), stanzas, b, b.NotAfter.Add(test.after), id)
		if !errors.Is(err, test.want) {
			t.Errorf("%v after the expiry: error %v, want %v", test.after, err, test.want)
		}
		if key != nil {
			key.Close()
		}
	}
	// An expiry that a registry wrote into the clear entry proves nothing.
	stanzas[0].NotAfter = now.Add(-time.Hour)
	if _, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, id); errors.Is(err, encrypt.ErrExpired) || !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("forged expiry: error %v, want ErrNoKey and not ErrExpired", err)
	}
}

func TestExpiryIsInWholeSeconds(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	key, b := encrypttest.NewBinding(t)
	b.NotAfter = time.Date(2027, 1, 2, 5, 0, 0, 999, time.FixedZone("", 3600))
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2027, 1, 2, 4, 0, 0, 0, time.UTC); stanzas[0].NotAfter != want {
		t.Errorf("notAfter %v, want %v", stanzas[0].NotAfter, want)
	}
	for _, impossible := range []time.Time{time.Unix(0, 0), time.Unix(-1, 0), time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		b.NotAfter = impossible
		if _, err := encrypt.WrapKey(t.Context(), key, b, id.Recipient()); err == nil {
			t.Errorf("wrapped with expiry %v", impossible)
		}
	}
}

// TestOutageFallsThrough: an identity that fails does not hide one that works.
func TestOutageFallsThrough(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, raw{}, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	outage := errors.New("503 from the key service")
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, raw{result: outage, out: true}, generate(t, encrypt.TypeP256), id)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := got.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
		t.Error(err)
	}
	_, err = encrypt.UnwrapKey(t.Context(), stanzas, b, now, raw{result: outage, out: true})
	if !errors.Is(err, outage) || !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("error %v, want the outage and ErrNoKey", err)
	}
}

// TestFloodOfStanzas is K14: no identity that calls out is asked more than four
// times, whatever a grant holds.
func TestFloodOfStanzas(t *testing.T) {
	key, b := encrypttest.NewBinding(t)
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, raw{})
	if err != nil {
		t.Fatal(err)
	}
	var flood []encrypt.Stanza
	for range 1000 {
		s := stanzas[0]
		s.Body = make([]byte, 128)
		flood = append(flood, s)
	}
	calls := 0
	_, err = encrypt.UnwrapKey(t.Context(), append(flood, stanzas...), b, now, raw{calls: &calls, out: true})
	if !errors.Is(err, encrypt.ErrNoKey) || calls != 4 {
		t.Errorf("asked %d times, error %v", calls, err)
	}
	if len(err.Error()) > 1000 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	calls = 0
	got, err := encrypt.UnwrapKey(t.Context(), append(flood, stanzas...), b, now, raw{calls: &calls})
	if err != nil || calls != 1001 {
		t.Fatalf("a local identity was asked %d times, error %v", calls, err)
	}
	got.Close()
}

// TestThousandRecipients must cost one decapsulation, not a thousand.
func TestThousandRecipients(t *testing.T) {
	id := generate(t, "")
	key, b := encrypttest.NewBinding(t)
	recipients := make([]encrypt.Recipient, 1000)
	for i := range recipients {
		recipients[i] = generate(t, encrypt.TypeP256).Recipient()
	}
	recipients[999] = id.Recipient()
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, recipients...)
	if err != nil {
		t.Fatal(err)
	}
	counter := &counting{HPKEIdentity: id}
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, generate(t, ""), counter)
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	if counter.calls != 1 {
		t.Errorf("asked %d times", counter.calls)
	}
	if _, err := (&encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest, Recipients: append(stanzas, stanzas[0])}).Encode(); err == nil {
		t.Error("encoded 1001 recipients")
	}
}

type counting struct {
	*encrypt.HPKEIdentity
	calls int
}

func (c *counting) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	c.calls++
	return c.HPKEIdentity.Unwrap(ctx, s, b)
}

func TestNoKeyErrorSaysWhatWasTried(t *testing.T) {
	stanzas, _, b := mustWrap(t, generate(t, ""), generate(t, ""), generate(t, encrypt.TypeP256))
	unknown := stanzas[0]
	unknown.Type = "aws-kms"
	_, err := encrypt.UnwrapKey(t.Context(), append(stanzas, unknown), b, now, generate(t, ""))
	var none *encrypt.NoKeyError
	if !errors.As(err, &none) {
		t.Fatalf("error %v, want a NoKeyError", err)
	}
	if none.Stanzas != 4 || none.Identities != 1 || len(none.Errs) != 0 || none.Types[encrypt.DefaultType] != 2 {
		t.Errorf("got %+v", none)
	}
	if want := "encrypt: no key: 1 identities, 4 stanzas, 1 aws-kms, 2 hpke-mlkem768-x25519, 1 hpke-p256"; err.Error() != want {
		t.Errorf("got  %s\nwant %s", err, want)
	}
	if _, err := encrypt.UnwrapKey(t.Context(), nil, b, now); !errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("nothing at all: error %v, want ErrNoKey", err)
	}
}

func TestCancelledUnwrapIsNotAMissingKey(t *testing.T) {
	id := generate(t, "")
	stanzas, _, b := mustWrap(t, id)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := encrypt.UnwrapKey(ctx, stanzas, b, now, id); !errors.Is(err, context.Canceled) || errors.Is(err, encrypt.ErrNoKey) {
		t.Errorf("error %v, want context.Canceled alone", err)
	}
}

// TestUnwrapRejectsAnotherKey is the case of a grant made by somebody who knows
// the recipient's public key and all public values, but not the data key.
func TestUnwrapRejectsAnotherKey(t *testing.T) {
	id := generate(t, "")
	_, _, b := mustWrap(t, id)
	payload := make([]byte, 128)
	bound := b.Context()
	copy(payload, "MSG1")
	copy(payload[4:], bound[len(bound)-92:])
	s, err := id.Recipient().Wrap(t.Context(), payload, b)
	if err != nil {
		t.Fatal(err)
	}
	s.Scope, s.NotAfter = encrypt.ScopeArtifact, b.NotAfter
	if _, err := encrypt.UnwrapKey(t.Context(), []encrypt.Stanza{s}, b, now, id); !errors.Is(err, encrypt.ErrKeyMismatch) || !strings.Contains(err.Error(), "wrong commitment") {
		t.Errorf("error %v, want ErrKeyMismatch for the commitment", err)
	}
}

func TestWrapKeyRefuses(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	key, b := encrypttest.NewBinding(t)
	other := encrypt.NewKey()
	defer other.Close()
	wrap := func(b encrypt.Binding, r ...encrypt.Recipient) error {
		_, err := encrypt.WrapKey(t.Context(), key, b, r...)
		return err
	}
	with := func(change func(*encrypt.Binding)) encrypt.Binding {
		b := b
		change(&b)
		return b
	}
	for name, err := range map[string]error{
		"no recipients":         wrap(b),
		"a recipient twice":     wrap(b, id.Recipient(), id.Recipient()),
		"scope files":           wrap(with(func(b *encrypt.Binding) { b.Scope = encrypt.ScopeFiles }), id.Recipient()),
		"unknown scope":         wrap(with(func(b *encrypt.Binding) { b.Scope = "tensor" }), id.Recipient()),
		"no manifest":           wrap(with(func(b *encrypt.Binding) { b.Manifest = "" }), id.Recipient()),
		"sha512 manifest":       wrap(with(func(b *encrypt.Binding) { b.Manifest = digest.SHA512.FromString("") }), id.Recipient()),
		"upper-case manifest":   wrap(with(func(b *encrypt.Binding) { b.Manifest = digest.Digest("sha256:" + strings.Repeat("AB", 32)) }), id.Recipient()),
		"commitment of another": wrap(with(func(b *encrypt.Binding) { b.Commitment = other.Commitment(b.ArtifactID) }), id.Recipient()),
		"stanza without type":   wrap(b, bad{encrypt.Stanza{KeyID: b.KeyID("x", nil), Body: []byte{1}}}),
		"stanza without key id": wrap(b, bad{encrypt.Stanza{Type: "x", Body: []byte{1}}}),
		"stanza without body":   wrap(b, bad{encrypt.Stanza{Type: "x", KeyID: b.KeyID("x", nil)}}),
		"body over 8 KiB":       wrap(b, bad{encrypt.Stanza{Type: "x", KeyID: b.KeyID("x", nil), Body: make([]byte, 8<<10+1)}}),
		"param over 1 KiB":      wrap(b, bad{encrypt.Stanza{Type: "x", KeyID: b.KeyID("x", nil), Body: []byte{1}, Params: map[string]string{"k": strings.Repeat("v", 1024)}}}),
	} {
		if err == nil {
			t.Errorf("%s: wrapped", name)
		}
	}
	if _, err := encrypt.WrapKey(t.Context(), other, b, id.Recipient()); !errors.Is(err, encrypt.ErrKeyMismatch) {
		t.Errorf("another key: error %v, want ErrKeyMismatch", err)
	}
}

type bad struct{ s encrypt.Stanza }

func (r bad) Wrap(context.Context, []byte, encrypt.Binding) (encrypt.Stanza, error) { return r.s, nil }

// TestRecipientsCannotHarmEachOther: one that scribbles on the key it borrows
// leaves the others with the right one, and retained bytes are wiped.
func TestRecipientsCannotHarmEachOther(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	key, b := encrypttest.NewBinding(t)
	s := &scribbler{}
	stanzas, err := encrypt.WrapKey(t.Context(), key, b, s, id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, id)
	if err != nil {
		t.Fatal(err)
	}
	got.Close()
	for _, c := range s.kept {
		if c != 0 {
			t.Fatal("the borrowed key was not wiped")
		}
	}
}

type scribbler struct{ kept []byte }

func (s *scribbler) Wrap(_ context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	for i := range key {
		key[i] = 0xEE
	}
	s.kept = key
	return encrypt.Stanza{Type: "x", KeyID: b.KeyID("x", nil), Body: []byte{1}}, nil
}

// TestKeyIDsAreUnlinkable is K33.
func TestKeyIDsAreUnlinkable(t *testing.T) {
	a := encrypt.Binding{ArtifactID: [16]byte{1}}
	b := encrypt.Binding{ArtifactID: [16]byte{2}}
	ids := map[string]bool{}
	for _, id := range []string{a.KeyID("t", []byte("k")), b.KeyID("t", []byte("k")), a.KeyID("t", []byte("l")), a.KeyID("u", []byte("k")), a.KeyID("tk", nil)} {
		if len(id) != 32 || ids[id] {
			t.Errorf("id %q is repeated or has %d digits", id, len(id))
		}
		ids[id] = true
	}
}

func TestUnwrapDoesNotReorderItsArguments(t *testing.T) {
	id := generate(t, encrypt.TypeP256)
	stanzas, _, b := mustWrap(t, generate(t, encrypt.TypeP256), id)
	before := fmt.Sprint(stanzas)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			key, err := encrypt.UnwrapKey(t.Context(), stanzas, b, now, id)
			if err != nil {
				t.Error(err)
				return
			}
			key.Close()
		})
	}
	wg.Wait()
	if fmt.Sprint(stanzas) != before {
		t.Error("the stanzas changed")
	}
}
