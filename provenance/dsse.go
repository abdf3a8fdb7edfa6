// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import "strconv"

// PayloadType is the DSSE payload type of in-toto statements, the only one that
// evidence about a model has.
const PayloadType = "application/vnd.in-toto+json"

// Envelope is a DSSE envelope with exactly one signature.
type Envelope struct {
	// PayloadType says what Payload is, and is signed with it.
	PayloadType string
	Payload     []byte
	Signature   []byte
}

// PAE is the DSSE pre-authentication encoding: the bytes that are signed.
func PAE(payloadType string, payload []byte) []byte {
	b := make([]byte, 0, len("DSSEv1")+len(payloadType)+len(payload)+48)
	b = append(b, "DSSEv1 "...)
	b = strconv.AppendInt(b, int64(len(payloadType)), 10)
	b = append(b, ' ')
	b = append(b, payloadType...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(len(payload)), 10)
	b = append(b, ' ')
	return append(b, payload...)
}
