// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/opencontainers/go-digest"
)

// A publisher seals a layer and wraps the key; a reader recovers the key with
// its identity and opens a segment.
func Example() {
	ctx := context.Background()
	team, err := encrypt.GenerateIdentity("")
	if err != nil {
		panic(err)
	}

	key := encrypt.NewKey()
	defer key.Close()
	part := encrypt.Part{Layer: 0, Length: 7, SegmentSize: 1 << 20}
	rand.Read(part.ArtifactID[:])
	sealer, err := encrypt.NewPartSealer(key, part)
	if err != nil {
		panic(err)
	}
	header := sealer.Header()
	stored, err := sealer.SealSegment(nil, 0, []byte("weights"))
	if err != nil {
		panic(err)
	}
	binding := encrypt.Binding{
		ArtifactID: part.ArtifactID,
		Commitment: key.Commitment(part.ArtifactID),
		Manifest:   digest.FromString("the bytes of the manifest"),
	}
	stanzas, err := encrypt.WrapKey(ctx, key, binding, team.Recipient())
	if err != nil {
		panic(err)
	}

	opened, err := encrypt.UnwrapKey(ctx, stanzas, binding, time.Now(), team)
	if err != nil {
		panic(err)
	}
	defer opened.Close()
	opener, err := encrypt.NewPartOpener(opened, part, header[:])
	if err != nil {
		panic(err)
	}
	plain, err := opener.OpenSegment(nil, 0, stored)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s\n", plain)
	// Output: weights
}
