// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// modelsecPush signs, and encrypts where there is a recipient.
func modelsecPush(ctx context.Context, t task) error {
	b, err := os.ReadFile(t.signer)
	if err != nil {
		return err
	}
	key, err := provenance.ParsePrivateKey(b)
	if err != nil {
		return err
	}
	var o modelsec.PushOptions
	if o.Signer, err = provenance.KeySigner(key); err != nil {
		return err
	}
	if t.recipient != "" {
		b, err := os.ReadFile(t.recipient)
		if err != nil {
			return err
		}
		r, err := encrypt.ParseRecipient(string(b))
		if err != nil {
			return err
		}
		o.Recipients = []encrypt.Recipient{r}
	}
	_, err = new(modelsec.Client).Push(ctx, t.ref, os.DirFS(t.dir), &o)
	return err
}

// modelsecPull opens under a policy that requires the key, and extracts.
func modelsecPull(ctx context.Context, t task) error {
	b, err := os.ReadFile(t.trust)
	if err != nil {
		return err
	}
	key, err := provenance.ParsePublicKey(b)
	if err != nil {
		return err
	}
	var c modelsec.Client
	if t.identity != "" {
		b, err := os.ReadFile(t.identity)
		if err != nil {
			return err
		}
		id, err := encrypt.ParseIdentity(string(b))
		if err != nil {
			return err
		}
		c.Identities = []encrypt.Identity{id}
	}
	m, err := c.Open(ctx, t.ref, provenance.RequireKey(key))
	if err != nil {
		return err
	}
	defer m.Close()
	return m.Extract(ctx, t.dir, nil)
}
