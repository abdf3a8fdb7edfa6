// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import "time"

// Whatever the other side sends is cut off here. A limit is checked before
// the memory it bounds is taken.
const (
	// maxManifest is what registries must accept and what the large ones
	// accept at most (distribution-spec 1.1, "Pushing Manifests").
	maxManifest = 4 << 20

	// maxListing bounds one listing of referrers, over all its pages, and
	// index.json of a layout. Ten thousand descriptors with annotations of 600
	// bytes fit.
	maxListing = 8 << 20

	// maxReferrers is well above the 300 grants and attestations that one
	// artifact was seen to carry, and small enough to fetch in minutes.
	maxReferrers = 10_000

	// maxAnnotations, in bytes, is what a manifest may add to the listing of
	// its subject; more would let one referrer crowd out the others.
	maxAnnotations = 64 << 10

	// maxTags and maxTagListing bound the tags of one repository; a nightly
	// build fills the first in 270 years.
	maxTags       = 100_000
	maxTagListing = 16 << 20

	// maxPages ends listings whose pages are empty but never the last.
	maxPages = 1_000

	// maxLayoutScan bounds the manifests that a search for referrers reads
	// from a layout: a hundred versions with 400 layers each, and their
	// evidence, take less than half of it.
	maxLayoutScan = 64 << 20

	// maxErrorBody is how much of a refusal is read to learn its code.
	maxErrorBody = 8 << 10

	// maxErrorMessage keeps a hostile message from drowning a log.
	maxErrorMessage = 256

	// maxToken is the largest answer of a token service; tokens travel in
	// headers, which servers cap at 16 KiB or less.
	maxToken = 128 << 10

	// maxAuthFile is far above what a login for every registry takes.
	maxAuthFile = 1 << 20

	// maxRedirects: registries redirect once, to their object store; some
	// object stores redirect once more.
	maxRedirects = 5

	// maxReference is the longest host and path that a reference may have;
	// some registries have a limit of 255 for both together.
	maxReference = 255
)

const (
	// defaultConnections saturates 10 Gbit/s over TLS with cores to spare.
	defaultConnections = 16

	// bufferSize of a connection for reading, which larger reads bypass.
	bufferSize = 256 << 10

	// minChunk and maxChunk bound what an upload sends at once, so that a line
	// may be as slow as 9 KB/s, and one that becomes slow 70 KB/s at first. After a
	// chunk that took longer than slowChunk the next is the least. The most is
	// more than an encrypted segment of the usual size.
	minChunk  = 256 << 10
	maxChunk  = 2 << 20
	slowChunk = time.Second

	// headSize is the buffer of a connection for writing. A request without a
	// body fits in it; content should not be copied through it.
	headSize = 8 << 10

	// expectFrom is the content that a registry should agree to take before it
	// is sent. To ask costs more than to send less than this in vain.
	expectFrom = 2 << 20

	// maxAttempts, with waits that double from minBackoff to maxBackoff, rides
	// out a restart of the registry (about ten seconds) but not an outage.
	maxAttempts = 6
	minBackoff  = 200 * time.Millisecond
	maxBackoff  = 5 * time.Second

	// refusedAttempts is for a host that refuses connections and has never
	// answered: its address is wrong more often than it is about to start.
	refusedAttempts = 2

	// mirrorAttempts: there is somebody else to ask.
	mirrorAttempts = 2

	// maxRetryAfter caps the wait that a server may impose at once.
	maxRetryAfter = 60 * time.Second

	// stallTimeout is how long an answer, or the next minProgress bytes of a
	// body, may take. Time that the caller spends between reads is not
	// counted. One KiB a second is no use to anybody who loads weights.
	stallTimeout = 30 * time.Second
	minProgress  = 32 << 10

	// commitTimeout is how long a registry may take to store a blob whose
	// bytes it has: some hash it again, some copy it between buckets.
	commitTimeout = 15 * time.Minute

	// abortTimeout bounds the attempt to end an upload session.
	abortTimeout = 5 * time.Second

	// fallbackAttempts bounds the rounds of write and read back that put an
	// entry into a referrers tag which others write too.
	fallbackAttempts = 12

	// After a time between these bounds a read-back must still show the entry:
	// fallbackGaps times what passed from our read to our write, since another
	// writer who read before that write writes within some such time too.
	fallbackGaps      = 10
	fallbackSettle    = 25 * time.Millisecond
	fallbackSettleMax = time.Second
)
