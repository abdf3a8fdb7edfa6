// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"net"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/examples/internal/podenv"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// Exit statuses, those of the modelsec command.
const (
	statusDone        = 0
	statusFailed      = 1
	statusUsage       = 2
	statusRefused     = 3
	statusNoKey       = 4
	statusRegistry    = 5
	statusInterrupted = 130
)

// statusOf orders what an error may be at once: nobody learns that a policy
// refused from a status that says network.
func statusOf(ctx context.Context, err error) int {
	var refused *provenance.PolicyError
	var atRegistry *registry.Error
	var network net.Error
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return statusDone
	case is(podenv.ErrConfig):
		return statusUsage
	case errors.As(err, &refused):
		return statusRefused
	case ctx.Err() != nil:
		return statusInterrupted
	case is(modelsec.ErrNoKey, encrypt.ErrNoKey):
		return statusNoKey
	case is(modelsec.ErrDigest, modelsec.ErrFormat, encrypt.ErrDecrypt, encrypt.ErrKeyMismatch, provenance.ErrFormat, provenance.ErrSignature, registry.ErrInvalid):
		return statusRefused
	case is(modelsec.ErrConfig, modelsec.ErrUnpinned, provenance.ErrPolicy):
		return statusUsage
	case errors.As(err, &atRegistry), errors.As(err, &network):
		return statusRegistry
	}
	return statusFailed
}
