// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build goexperiment.runtimesecret

package encrypt

import (
	runtimesecret "runtime/secret"
	"testing"

	"github.com/modelsec/modelsec-go/internal/floe"
)

// TestKeysAreHandledUnderGuard: what a key is lent to, and what makes openers
// and sealers of it, runs where the runtime erases after it.
func TestKeysAreHandledUnderGuard(t *testing.T) {
	k := NewKey()
	defer k.Close()
	check := func(what string) {
		if !runtimesecret.Enabled() {
			t.Errorf("%s is not under guard", what)
		}
	}
	if err := k.dek.use(func([]byte) error { check("use"); return nil }); err != nil {
		t.Error(err)
	}
	if err := lendPart(k, Part{}, func(*[floe.KeySize]byte) error { check("lendPart"); return nil }); err != nil {
		t.Error(err)
	}
	if runtimesecret.Enabled() {
		t.Error("the guard does not end")
	}
}
