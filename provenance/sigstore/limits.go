// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import "time"

const (
	// maxBundle and maxPayload are the bounds of FORMAT.md §11, for what does not
	// pass through package provenance first.
	maxBundle  = 4 << 20
	maxPayload = 4 << 20
	// maxRoot is a hundred times the trusted root of the public instance.
	maxRoot = 1 << 20
	// maxResponse is far above what any service answers to a signer.
	maxResponse = 4 << 20
	// maxReason bounds what of an error, or of a service's answer, is repeated.
	maxReason = 500
	// requestTimeout bounds each request to a service. A log of version 2 answers
	// when it has published its next checkpoint, which takes up to 20 seconds.
	requestTimeout = time.Minute
	// retries of requests that leave nothing behind at the service.
	retries = 2
)
