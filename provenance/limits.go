// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import "time"

// Bounds on what others wrote (FORMAT.md §11). Each is applied before anything
// of that size is decoded.
const (
	// maxBundle is the largest attestation a reader fetches.
	maxBundle = 4 << 20
	// maxStatement bounds a payload, which base64 makes a third larger inside a
	// bundle; statements given by callers meet it as well.
	maxStatement = 4 << 20
	// maxPolicy leaves room for thousands of rules.
	maxPolicy = 1 << 20
	// maxSubjects is what StatementOptions may ask for: the bound of sigstore-go.
	maxSubjects = 1024
	// maxLogEntries and maxTimestamps are the bounds of sigstore-go. More would
	// only buy a forger signature checks.
	maxLogEntries = 32
	maxTimestamps = 32
	// maxSCTs is above what any certificate carries.
	maxSCTs = 32
	// maxCertificates is far above any chain in use.
	maxCertificates = 16
	// maxPEM holds the largest key supported many times over.
	maxPEM = 16 << 10
	// maxAnnotation is the largest manifest, of which an annotation is a part.
	maxAnnotation = 4 << 20
	// maxName bounds names of models and principals, and URIs in reports.
	maxName = 1024
	// maxClip bounds what others wrote in a message, and maxReason a reason that
	// has reasons in it.
	maxClip   = 128
	maxReason = 1024
	// maxTags bounds the tags of one release statement.
	maxTags = 1024
	// maxSequence keeps a sequence exact in readers that hold numbers as IEEE
	// doubles (FORMAT.md §9.1).
	maxSequence = 1<<53 - 1
	// maxClockSkew is how far a trusted time may lie ahead of the caller's clock
	// before one of the two must be wrong.
	maxClockSkew = 5 * time.Minute
)
