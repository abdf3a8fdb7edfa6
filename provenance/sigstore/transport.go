// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// bound returns a transport whose requests end with ctx and whose answers have
// a limit. The clients of sigstore-go and go-tuf take a transport and no context,
// and one of them reads answers of any length.
func bound(ctx context.Context, inner http.RoundTripper) http.RoundTripper {
	if inner == nil {
		inner = http.DefaultTransport
	}
	return boundTransport{ctx, inner}
}

// errRedirect is what a service gets that sends a signer, and with it an identity
// token, to another address.
var errRedirect = errors.New("redirect refused")

type boundTransport struct {
	ctx   context.Context
	inner http.RoundTripper
}

func (t boundTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	if req.Response != nil && (req.Method != http.MethodGet || req.Header.Get("Authorization") != "") {
		return nil, errRedirect
	}
	// The request keeps its own end, which is a timeout; whichever comes first.
	ctx, cancel := context.WithCancel(req.Context())
	stop := context.AfterFunc(t.ctx, cancel)
	done := func() { stop(); cancel() }
	res, err := t.inner.RoundTrip(req.WithContext(ctx))
	if err != nil {
		done()
		return nil, err
	}
	res.Body = &boundBody{Reader: io.LimitReader(res.Body, maxResponse+1), body: res.Body, done: done}
	return res, nil
}

type boundBody struct {
	io.Reader
	body io.Closer
	read int64
	done func()
}

func (b *boundBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.read += int64(n); b.read > maxResponse {
		return 0, fmt.Errorf("answer of more than %d bytes", maxResponse)
	}
	return n, err
}

func (b *boundBody) Close() error {
	defer b.done()
	return b.body.Close()
}
