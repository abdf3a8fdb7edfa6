// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

func TestStatusOfErrors(t *testing.T) {
	noKey := &encrypt.NoKeyError{Stanzas: 1, Errs: []error{encrypt.ErrKeyMismatch, encrypt.ErrDecrypt, encrypt.ErrExpired}}
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"something else", errors.New("disk full"), statusFailed},
		{"source", modelsec.ErrSource, statusFailed},
		{"disk", modelsec.ErrNoSpace, statusFailed},
		{"own judgement", usagef("bad flag"), statusUsage},
		{"configuration", modelsec.ErrConfig, statusUsage},
		{"no digest", modelsec.ErrUnpinned, statusUsage},
		{"signed grant", modelsec.ErrGrantSigned, statusUsage},
		{"policy file", provenance.ErrPolicy, statusUsage},
		{"policy", &provenance.PolicyError{Report: &provenance.Report{}}, statusRefused},
		{"policy, and the audit failed too", errors.Join(&provenance.PolicyError{Report: &provenance.Report{}}, modelsec.ErrAudit), statusRefused},
		{"digest", modelsec.ErrDigest, statusRefused},
		{"format", modelsec.ErrFormat, statusRefused},
		{"decryption", encrypt.ErrDecrypt, statusRefused},
		{"invalid content", &registry.Error{Op: "fetch", Err: registry.ErrInvalid}, statusRefused},
		{"no key", modelsec.ErrNoKey, statusNoKey},
		{"keys that did not fit", fmt.Errorf("%w: %w", modelsec.ErrNoKey, noKey), statusNoKey},
		{"not found", &registry.Error{Op: "resolve", Status: http.StatusNotFound, Err: registry.ErrNotFound}, statusRegistry},
		{"login", &registry.Error{Op: "resolve", Status: http.StatusUnauthorized, Err: registry.ErrUnauthorized}, statusRegistry},
		{"broken line", &registry.Error{Op: "fetch", Err: io.ErrUnexpectedEOF}, statusRegistry},
		{"nonsense after a write", &registry.Error{Op: "commit", Err: registry.ErrInvalid}, statusRegistry},
		{"not revoked", modelsec.ErrNotRevoked, statusRegistry},
		{"bare network", syscall.ECONNREFUSED, statusRegistry},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			tool := &tool{started: true}
			err := &modelsec.Error{Op: "pull", Segment: -1, Err: test.err}
			if got := tool.status(t.Context(), err); got != test.want {
				t.Errorf("status %d, want %d", got, test.want)
			}
		})
	}
}

func TestStatusAfterASignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	tool := &tool{started: true}
	if got := tool.status(ctx, &registry.Error{Op: "fetch", Err: context.Canceled}); got != statusInterrupted {
		t.Errorf("status %d, want %d", got, statusInterrupted)
	}
	// What a policy said before the signal stays said.
	refused := &provenance.PolicyError{Report: &provenance.Report{}}
	if got := tool.status(ctx, refused); got != statusRefused {
		t.Errorf("status %d, want %d", got, statusRefused)
	}
}

func TestStatusBeforeAVerbBegan(t *testing.T) {
	if got := new(tool).status(t.Context(), errors.New("unknown flag: --bogus")); got != statusUsage {
		t.Errorf("status %d, want %d", got, statusUsage)
	}
}

// TestAFullDiskHasANextStep, whoever found that it is full.
func TestAFullDiskHasANextStep(t *testing.T) {
	for _, full := range []error{modelsec.ErrNoSpace, &os.PathError{Op: "write", Err: syscall.ENOSPC}} {
		tool := &tool{started: true, verb: "pull"}
		if got := tool.hint(statusFailed, &modelsec.Error{Op: "pull", Segment: -1, Err: full}); !strings.Contains(got, "make room") {
			t.Errorf("%v: the hint is %q", full, got)
		}
	}
}
