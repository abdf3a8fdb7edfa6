// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms

import (
	"context"
	"net"
	"net/http"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// maxAnswer is far above any answer to these two calls, which the SDK reads into
// memory whole.
const maxAnswer = 64 << 10

// bounded cuts answers that are longer.
type bounded struct{ transport policy.Transporter }

// Do implements policy.Transporter.
func (b bounded) Do(r *http.Request) (*http.Response, error) {
	resp, err := b.transport.Do(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}

// newTransport connects to endpoint in place of the vault, where it is not
// empty; the certificate must be the vault's all the same.
func newTransport(endpoint string) *http.Client {
	// Not that of the process, which others may have set up for less than a key.
	t := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	if endpoint != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, endpoint)
		}
	}
	return &http.Client{
		Transport: t,
		// A redirect would take the wrapped key, and the token, elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
