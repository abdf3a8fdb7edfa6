// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// fileHelper is a key helper for private key files. FILE_STATE says what it
// answers in place of serving, FILE_LOG names a file that gets a line for every
// unwrap.
func fileHelper() {
	states := map[string]error{
		"denied": encrypt.ErrDenied, "disabled": encrypt.ErrDisabled,
		"throttled": encrypt.ErrThrottled, "unavailable": encrypt.ErrUnavailable,
	}
	keyhelper.Main(func(_ context.Context, path string) (*keyhelper.Key, error) {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("no such key")
		}
		id, err := encrypt.ParseIdentity(string(text))
		if err != nil {
			return nil, fmt.Errorf("no key file")
		}
		r := id.Recipient()
		k := &keyhelper.Key{Type: r.Type(), Resource: r.Bytes(), Recipient: r, Identity: id}
		if err := states[os.Getenv("FILE_STATE")]; err != nil {
			k.Recipient, k.Identity = failing{r, err}, failing{r, err}
		}
		if os.Getenv("FILE_STATE") == "classical" {
			k.Recipient = struct{ encrypt.Recipient }{r} // which says no class
		}
		if path := os.Getenv("FILE_LOG"); path != "" {
			k.Identity = logged{k.Identity, path}
		}
		return k, nil
	})
}

type logged struct {
	encrypt.Identity
	path string
}

func (l logged) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	f, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.WriteString(s.KeyID + "\n"); err != nil {
		return nil, err
	}
	return l.Identity.Unwrap(ctx, s, b)
}

// failing is a key service in a state.
type failing struct {
	*encrypt.HPKERecipient
	err error
}

func (f failing) Wrap(context.Context, []byte, encrypt.Binding) (encrypt.Stanza, error) {
	return encrypt.Stanza{}, f.err
}

func (f failing) Unwrap(context.Context, encrypt.Stanza, encrypt.Binding) ([]byte, error) {
	return nil, f.err
}
