// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

// TestBodyIsWiped: whoever still reads when the request is over finds an error,
// and whoever keeps the bytes finds zeros.
func TestBodyIsWiped(t *testing.T) {
	text := []byte(`{"plaintext":"c2VjcmV0"}`)
	kept := bytes.Clone(text)
	b := &body{bytes: kept}
	for range 2 { // once for each connection
		r, _ := b.open()
		if err := iotest.TestReader(r, text); err != nil {
			t.Error(err)
		}
	}
	r, _ := b.open()
	if _, err := r.Read(make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	b.wipe()
	if n, err := r.Read(make([]byte, 3)); n != 0 || err == nil || err == io.EOF {
		t.Errorf("read %d bytes after the end of the request, error %v", n, err)
	}
	if !bytes.Equal(kept, make([]byte, len(text))) {
		t.Error("the bytes are still there")
	}
}
