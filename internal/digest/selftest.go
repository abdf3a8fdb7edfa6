// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest

import (
	"crypto/sha256"
	"encoding/hex"
)

// knownLengths are those of the messages of the known answer: on both sides of
// the borders where the padding needs a block more, so that lanes end apart.
var knownLengths = [...]int{0, 1, 3, 54, 55, 56, 63, 64, 65, 119, 120, 127, 128, 129, 183, 184}

// knownAnswer is the SHA-256 of the digests of all messages in order, message i
// being knownLengths[i] bytes of b(i), b(i+1), … with b(j) = ⌊(j²+7j)/8⌋ mod 256.
const knownAnswer = "b276677172312741341ebfc9abee99eeb0aef3a65def9dc16ffae06d77e6da11"

// knownBlob is the SHA-256 of all these messages in one.
const knownBlob = "01f17649505c4f698c641035d4c0972dca5b8e64b0f903a371131e60c65298e7"

// selfTest computes the known answer on every path that this processor has.
func selfTest() error {
	for _, p := range []Path{Pairs, Sixteen} {
		if k, ok := kernelsFor(p); ok && !(k.knows() && (!k.pairing() || knowsBlob())) {
			broken.Store(true)
			return ErrLanes
		}
	}
	return nil
}

func (k kernels) knows() bool {
	messages := knownMessages()
	var sums [len(messages)][Size]byte
	k.sum(sums[:], messages[:])
	h := sha256.New()
	for _, sum := range sums {
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil)) == knownAnswer
}

func knowsBlob() bool {
	var m paired
	m.reset()
	h := sha256.New()
	for _, message := range knownMessages() {
		sum := m.part(message)
		h.Write(sum[:])
	}
	whole := m.sum()
	return hex.EncodeToString(h.Sum(nil)) == knownAnswer && hex.EncodeToString(whole[:]) == knownBlob
}

func knownMessages() (messages [len(knownLengths)][]byte) {
	var pattern [256]byte
	for j := range pattern {
		pattern[j] = byte((j*j + 7*j) / 8)
	}
	for i, n := range knownLengths {
		messages[i] = pattern[i : i+n]
	}
	return messages
}
