// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"
)

// TestPageIsLockedAndNotDumped reads what the kernel says about the mapping.
// Locking is best effort, so that a container without locked memory may lack
// it; where the limit allows a page it must be there.
func TestPageIsLockedAndNotDumped(t *testing.T) {
	p := newPage(keySize)
	defer p.free()
	if p.mapped == nil {
		t.Skip("no anonymous mapping here: the key is in ordinary memory")
	}
	flags := mappingFlags(t, uintptr(unsafe.Pointer(&p.mapped[0])))
	if !strings.Contains(flags, " dd") {
		t.Errorf("flags %q lack dd: the page goes into core dumps", flags)
	}
	if !strings.Contains(flags, " lo") {
		t.Logf("flags %q lack lo: the page may be swapped", flags)
	}
}

// mappingFlags returns the VmFlags line of the mapping that holds address.
func mappingFlags(t *testing.T, address uintptr) string {
	t.Helper()
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Skipf("no smaps: %v", err)
	}
	var inside bool
	for line := range bytes.Lines(smaps) {
		var from, to uintptr
		if n, _ := fmt.Sscanf(string(line), "%x-%x ", &from, &to); n == 2 {
			inside = from <= address && address < to
		}
		if inside && bytes.HasPrefix(line, []byte("VmFlags:")) {
			return string(line)
		}
	}
	t.Skip("smaps shows no flags here")
	return ""
}
