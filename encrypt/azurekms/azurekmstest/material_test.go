// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekmstest

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestKeyWrapIsThatOfRFC3394 takes the vector of its section 4.6.
func TestKeyWrapIsThatOfRFC3394(t *testing.T) {
	kek, _ := hex.DecodeString("000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f")
	key, _ := hex.DecodeString("00112233445566778899aabbccddeeff000102030405060708090a0b0c0d0e0f")
	want, _ := hex.DecodeString("28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21")
	k := aesKey(kek)
	got, err := k.wrap("A256KW", key)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("wrapped %x (error %v), want %x", got, err, want)
	}
	if back, err := k.unwrap("A256KW", want); err != nil || !bytes.Equal(back, key) {
		t.Errorf("unwrapped %x (error %v), want %x", back, err, key)
	}
}
