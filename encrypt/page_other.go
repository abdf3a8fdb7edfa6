// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package encrypt

// A page holds a secret. Here it is ordinary memory, wiped when freed.
type page struct{ bytes []byte }

func newPage(n int) *page { return &page{bytes: make([]byte, n)} }

// free wipes the page. Nobody may use bytes afterwards.
func (p *page) free() {
	clear(p.bytes)
	p.bytes = nil
}
