// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms

import (
	"context"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
)

// maxAnswer is far above any answer to these two calls, which the SDK reads into
// memory whole.
const maxAnswer = 64 << 10

// bounded cuts answers that are longer, and leaves out what the SDK cannot read.
type bounded struct{ transport policy.Transporter }

// Do implements policy.Transporter.
func (b bounded) Do(r *http.Request) (*http.Response, error) {
	resp, err := b.transport.Do(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
		if !namesTenant(resp.Header.Get("WWW-Authenticate")) {
			resp.Header.Del("WWW-Authenticate")
		}
	}
	return resp, err
}

// namesTenant reports whether the authority of a challenge, where it has one, is
// https://HOST/TENANT. The SDK takes the challenge apart as it is done here, and
// panics where there is no tenant.
func namesTenant(challenge string) bool {
	for part := range strings.SplitSeq(strings.ReplaceAll(challenge, "Bearer ", ""), " ") {
		if authority, ok := strings.CutPrefix(part, "authorization="); ok && strings.Count(authority, "/") < 3 {
			return false
		}
	}
	return true
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
