// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package pkcs11_test

import (
	"errors"
	"testing"

	key "github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

func TestWithoutCgoNewSaysSo(t *testing.T) {
	if _, err := key.New(key.Config{Module: "/x.so", Token: "t", Object: "o"}); !errors.Is(err, key.ErrNoCgo) {
		t.Errorf("error %v, want ErrNoCgo", err)
	}
}
