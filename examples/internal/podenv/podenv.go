// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package podenv reads from the environment of a pod whom it trusts and what
// opens its models:
//
//	MODELSEC_POLICY    policy file (docs/POLICY.md); or
//	MODELSEC_KEY       public key file of the publisher
//	MODELSEC_IDENTITY  what opens encrypted models, separated by spaces: identity
//	                   files, or keys of a key service by URI (docs/KEYS.md)
package podenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyuri"
	"github.com/modelsec/modelsec-go/provenance"
)

// ErrConfig marks what whoever wrote the pod must change.
var ErrConfig = errors.New("misconfigured")

// Policy says whom the pod trusts. There is no default: no model is loaded
// without saying so.
func Policy(env func(string) string) (provenance.Policy, error) {
	policyFile, keyFile := env("MODELSEC_POLICY"), env("MODELSEC_KEY")
	switch {
	case (policyFile == "") == (keyFile == ""):
		return provenance.Policy{}, fmt.Errorf("%w: whom to trust? set MODELSEC_POLICY or MODELSEC_KEY, and not both", ErrConfig)
	case policyFile != "":
		text, err := os.ReadFile(policyFile)
		if err != nil {
			return provenance.Policy{}, fmt.Errorf("%w: MODELSEC_POLICY: %w", ErrConfig, err)
		}
		p, err := provenance.ParsePolicy(text)
		if err != nil {
			return provenance.Policy{}, fmt.Errorf("%w: MODELSEC_POLICY: %s: %w", ErrConfig, policyFile, err)
		}
		return p, nil
	}
	text, err := os.ReadFile(keyFile)
	if err != nil {
		return provenance.Policy{}, fmt.Errorf("%w: MODELSEC_KEY: %w", ErrConfig, err)
	}
	pub, err := provenance.ParsePublicKey(text)
	if err != nil {
		return provenance.Policy{}, fmt.Errorf("%w: MODELSEC_KEY: %s: %w", ErrConfig, keyFile, err)
	}
	return provenance.RequireKey(pub), nil
}

// Identities are what opens encrypted models, in the order given.
func Identities(ctx context.Context, env func(string) string) ([]encrypt.Identity, error) {
	var out []encrypt.Identity
	for _, name := range strings.Fields(env("MODELSEC_IDENTITY")) {
		id, err := identity(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("%w: MODELSEC_IDENTITY: %s: %w", ErrConfig, name, err)
		}
		out = append(out, id)
	}
	return out, nil
}

func identity(ctx context.Context, name string) (encrypt.Identity, error) {
	if keyuri.Is(name) {
		return keyuri.Open(ctx, name)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	return encrypt.ParseIdentity(string(text))
}
