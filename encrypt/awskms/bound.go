// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskms

import (
	"net/http"

	"github.com/aws/aws-sdk-go-v2/service/kms"
)

// maxAnswer is far above any answer to these two calls, which the SDK reads into
// memory whole.
const maxAnswer = 64 << 10

// bounded cuts answers that are longer.
type bounded struct{ kms.HTTPClient }

// Do implements kms.HTTPClient.
func (b bounded) Do(r *http.Request) (*http.Response, error) {
	resp, err := b.HTTPClient.Do(r)
	if err == nil {
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	}
	return resp, err
}
