// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package keyhelper_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// FuzzServe: a request is whatever reaches stdin. Nothing but a request that is
// whole reaches the provider, and every answer is one document.
func FuzzServe(f *testing.F) {
	id, err := encrypt.GenerateIdentity(encrypt.TypeP256)
	if err != nil {
		f.Fatal(err)
	}
	_, b := encrypttest.NewBinding(f)
	params := map[string][][]byte{"modelsec.version": {[]byte("1")}, "modelsec.context": {b.Context()}, "modelsec.key": {[]byte("k")}}
	for _, req := range []any{
		map[string]any{"op": "modelsec.describe", "keyunwrapparams": map[string]any{"dc": map[string]any{"Parameters": params}}},
		map[string]any{"op": "keywrap", "keywrapparams": map[string]any{"ec": map[string]any{"Parameters": params}, "optsdata": make([]byte, 128)}},
		map[string]any{"op": "keyunwrap", "keyunwrapparams": map[string]any{"dc": map[string]any{"Parameters": params}, "annotation": []byte(`{"type":"hpke-p256","keyId":"","body":"AA=="}`)}},
	} {
		doc, err := json.Marshal(req)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(doc)
	}
	f.Add([]byte(`{"op":"keywrap"}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		var out bytes.Buffer
		err := keyhelper.Serve(t.Context(), bytes.NewReader(doc), &out, func(context.Context, string) (*keyhelper.Key, error) {
			r := id.Recipient()
			return &keyhelper.Key{Type: r.Type(), Resource: r.Bytes(), Recipient: r, Identity: id}, nil
		})
		var answer map[string]any
		if jsonErr := json.Unmarshal(out.Bytes(), &answer); jsonErr != nil {
			t.Fatalf("the answer is no JSON: %v", jsonErr)
		}
		if _, failed := answer["error"]; failed != (err != nil) {
			t.Errorf("error %v, answer %s", err, out.Bytes())
		}
	})
}

// TestServeHandsTheBindingOver: what the provider inside a helper is given is
// the binding of the caller, in every field.
func TestServeHandsTheBindingOver(t *testing.T) {
	back, c := newBackend(t, "built with Main")
	h := open(t, c, "ours")
	text, err := os.ReadFile(back.file("ours.pem"))
	if err != nil {
		t.Fatal(err)
	}
	linked, err := encrypt.ParseIdentity(string(text))
	if err != nil {
		t.Fatal(err)
	}
	_, b := encrypttest.NewBinding(t)
	for _, change := range []func(*encrypt.Binding){
		func(*encrypt.Binding) {},
		func(b *encrypt.Binding) { b.NotAfter = time.Time{} },
		func(b *encrypt.Binding) { b.Scope = encrypt.ScopeFiles },
		func(b *encrypt.Binding) { b.NotAfter = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) },
	} {
		b := b
		change(&b)
		s, err := h.Wrap(t.Context(), make([]byte, 128), b)
		if err != nil {
			t.Fatal(err)
		}
		// HPKE opens under the same info only.
		if _, err := linked.Unwrap(t.Context(), s, b); err != nil {
			t.Errorf("%+v: %v", b, err)
		}
	}
}
