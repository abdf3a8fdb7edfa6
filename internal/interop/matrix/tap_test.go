// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// openTap is the helper tap. It has one key, which lies in a directory, and
// leaves there what it was given to wrap: so a test knows the data keys.
func openTap(_ context.Context, dir string) (*keyhelper.Key, error) {
	text, err := os.ReadFile(filepath.Join(dir, "identity"))
	if err != nil {
		return nil, err
	}
	id, err := encrypt.ParseIdentity(string(text))
	if err != nil {
		return nil, err
	}
	r := id.Recipient()
	return &keyhelper.Key{Type: r.Type(), Resource: r.Bytes(), Recipient: tap{r, dir}, Identity: id}, nil
}

type tap struct {
	*encrypt.HPKERecipient
	dir string
}

func (t tap) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	dek := key[96:] // FORMAT.md §8.2
	name := sha256.Sum256(dek)
	if err := os.WriteFile(filepath.Join(t.dir, "tapped-"+hex.EncodeToString(name[:])), dek, 0o600); err != nil {
		return encrypt.Stanza{}, err
	}
	return t.HPKERecipient.Wrap(ctx, key, b)
}

// taps is the directory of a tap.
type taps string

func newTaps(t *testing.T) taps {
	t.Helper()
	dir := t.TempDir()
	id, err := encrypt.GenerateIdentity("")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity"), []byte(id.PEM()), 0o600); err != nil {
		t.Fatal(err)
	}
	return taps(dir)
}

func (d taps) recipient() string { return "helper:tap:" + string(d) }

func (d taps) keys(t *testing.T) (keys [][]byte) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(string(d), "tapped-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, b)
	}
	return keys
}

func (d taps) count(t *testing.T) int { return len(d.keys(t)) }

// absent fails the test where a data key is in b.
func (s *session) absent(where string, b []byte) {
	s.t.Helper()
	keys := s.tap.keys(s.t)
	if len(keys) == 0 {
		s.t.Fatal("no data key was tapped")
	}
	for _, key := range keys {
		for _, form := range forms(key) {
			if bytes.Contains(b, form) {
				s.t.Errorf("%s: holds a data key", where)
			}
		}
	}
}

// forms are the ways in which bytes end up in text: themselves, hex, numbers,
// and base64 wherever they begin in what is encoded.
func forms(key []byte) [][]byte {
	out := [][]byte{key, []byte(hex.EncodeToString(key)), []byte(fmt.Sprintf("%X", key)), bytes.Trim([]byte(fmt.Sprint(key)), "[]")}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for before := range 3 {
			text := e.EncodeToString(append(make([]byte, before), key...))
			// The first and the last digit may share bits with the neighbours.
			out = append(out, []byte(text[(before*8+5)/6:len(text)-1]))
		}
	}
	return out
}

// TestSearchFindsKeys: a search that finds nothing must be one that could.
func TestSearchFindsKeys(t *testing.T) {
	key := make([]byte, 32)
	rand.Read(key)
	for before := range 4 {
		payload := append(make([]byte, 93+before), key...)
		payload = append(payload, "and more"...)
		doc, err := json.Marshal(payload)
		if err != nil {
			t.Fatal(err)
		}
		for what, text := range map[string]string{
			"raw": string(payload), "JSON": string(doc), "%x": fmt.Sprintf("%x", payload), "%X": fmt.Sprintf("%X", payload),
			"%v": fmt.Sprint(payload), "URL": base64.URLEncoding.EncodeToString(payload),
		} {
			found := false
			for _, form := range forms(key) {
				found = found || bytes.Contains([]byte(text), form)
			}
			if !found {
				t.Errorf("%s with %d bytes before: not found", what, 93+before)
			}
		}
	}
}
