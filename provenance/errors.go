// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
)

// Sentinels for errors.Is. Refusal by a policy is a *PolicyError.
var (
	// ErrFormat is wrapped by errors about the form of evidence: a bundle, a
	// statement or a predicate that does not say one well-formed thing.
	ErrFormat = errors.New("malformed evidence")
	// ErrSignature is wrapped when a bundle is well formed and nobody whom the
	// verifier knows signed it.
	ErrSignature = errors.New("signature not verified")
	// ErrPolicy is wrapped by errors about a policy itself. It is a
	// configuration error: the policy refuses everything until it is corrected.
	ErrPolicy = errors.New("invalid policy")
)

// PolicyError is the refusal of an artifact by a policy.
type PolicyError struct {
	// Report lists every clause that was judged.
	Report *Report
}

// Error names the artifact and the first clause that refused it.
func (e *PolicyError) Error() string {
	return e.Report.summary()
}

func formatError(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrFormat, fmt.Errorf(format, args...))
}

func policyErrorf(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrPolicy, fmt.Errorf(format, args...))
}
