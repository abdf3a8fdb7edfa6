// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
)

// TestCommitmentBinds is the defence against a ciphertext that opens under two
// keys: neither another key nor another artifact has the commitment.
func TestCommitmentBinds(t *testing.T) {
	a, b := encrypt.NewKey(), encrypt.NewKey()
	defer a.Close()
	defer b.Close()
	id := [16]byte{1}
	c := a.Commitment(id)
	if err := a.CheckCommitment(id, c); err != nil {
		t.Errorf("own commitment: %v", err)
	}
	if err := b.CheckCommitment(id, c); !errors.Is(err, encrypt.ErrKeyMismatch) {
		t.Errorf("commitment of another key: error %v, want ErrKeyMismatch", err)
	}
	if err := a.CheckCommitment([16]byte{2}, c); !errors.Is(err, encrypt.ErrKeyMismatch) {
		t.Errorf("commitment of another artifact: error %v, want ErrKeyMismatch", err)
	}
}

func TestSealedIndex(t *testing.T) {
	k, other := encrypt.NewKey(), encrypt.NewKey()
	defer k.Close()
	defer other.Close()
	id, want := [16]byte{1}, []byte(`{"files":[]}`)
	sealed, err := k.SealIndex(id, want)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := k.OpenIndex(id, sealed); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := other.OpenIndex(id, sealed); !errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("another key: error %v, want ErrDecrypt", err)
	}
	if _, err := k.OpenIndex([16]byte{2}, sealed); !errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("another artifact: error %v, want ErrDecrypt", err)
	}
	for n := range sealed {
		if _, err := k.OpenIndex(id, sealed[:n]); !errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("%d of %d bytes: error %v, want ErrDecrypt", n, len(sealed), err)
		}
		sealed[n] ^= 1
		if _, err := k.OpenIndex(id, sealed); !errors.Is(err, encrypt.ErrDecrypt) {
			t.Errorf("byte %d flipped: error %v, want ErrDecrypt", n, err)
		}
		sealed[n] ^= 1
	}
}

func TestClosedKeyIsOfNoUse(t *testing.T) {
	k := encrypt.NewKey()
	id := [16]byte{1}
	sealed, err := k.SealIndex(id, nil)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := encrypt.NewPartSealer(k, encrypt.Part{SegmentSize: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	k.Close()
	k.Close()
	_, errSeal := k.SealIndex(id, nil)
	_, errOpen := k.OpenIndex(id, sealed)
	_, errPart := encrypt.NewPartSealer(k, encrypt.Part{SegmentSize: 1 << 16})
	for _, err := range []error{errSeal, errOpen, errPart, k.CheckCommitment(id, [32]byte{})} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("error %v, want fs.ErrClosed", err)
		}
	}
	if _, err := sealer.SealSegment(nil, 0, nil); err != nil {
		t.Errorf("a sealer made before: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("Commitment of a closed key returned")
		}
	}()
	k.Commitment(id)
}

// TestCloseWaits: the page must not vanish under a method that reads it.
func TestCloseWaits(t *testing.T) {
	for range 50 {
		k := encrypt.NewKey()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					if _, err := k.SealIndex([16]byte{}, nil); err != nil {
						return
					}
				}
			})
		}
		k.Close()
		wg.Wait()
	}
}

func TestKeyIsNeverShown(t *testing.T) {
	k := encrypt.NewKey()
	defer k.Close()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", k)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "key", k)
	asJSON, err := json.Marshal(map[string]any{"key": k})
	if err != nil {
		t.Fatal(err)
	}
	texts := []string{log.String(), string(asJSON), k.String()}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%p", "%T"} {
		texts = append(texts, fmt.Sprintf(verb, k))
	}
	texts = append(texts, fmt.Sprintf("%+v", struct{ K *encrypt.Key }{k}))
	for _, text := range texts {
		if !strings.Contains(text, "redacted") && !strings.Contains(text, "*encrypt.Key") && !strings.Contains(text, "0x") {
			t.Errorf("formats as %q", text)
		}
	}
	// A dereferenced Key has no methods; it must not have bytes either.
	if text := fmt.Sprintf("%v %+v %#v", *k, *k, *k); len(text) > 100 {
		t.Errorf("a copy formats as %q", text)
	}
}

// TestCloneOutlivesItsKey, and not the other way round.
func TestCloneOutlivesItsKey(t *testing.T) {
	key := encrypt.NewKey()
	want := key.Commitment([16]byte{1})
	clone, err := key.Clone()
	if err != nil {
		t.Fatal(err)
	}
	key.Close()
	if clone.Commitment([16]byte{1}) != want {
		t.Error("the clone is another key")
	}
	clone.Close()
	if _, err := clone.Clone(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("clone of a closed key: error %v, want fs.ErrClosed", err)
	}
}
