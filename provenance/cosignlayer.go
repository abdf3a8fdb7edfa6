// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// EnvelopeMediaType is the media type of a layer that holds a bare DSSE
// envelope: what cosign 2 lists under the tag sha256-HEX.att.
const EnvelopeMediaType = "application/vnd.dsse.envelope.v1+json"

// The annotations in which cosign 2 put what a bundle has beside the envelope.
// There are two more: of a chain, which says nothing that a trusted root does not,
// and of a timestamp, which is of the JSON of the envelope where that of a bundle
// is of the signature, and so has no place in one.
const (
	cosignCertificate = "dev.sigstore.cosign/certificate"
	cosignLogEntry    = "dev.sigstore.cosign/bundle"
)

// cosignBundleType is the one version of bundles that takes the promise of a log
// for an entry without its proof, and cosign 2 kept no other.
const cosignBundleType = "application/vnd.dev.sigstore.bundle+json;version=0.1"

// cosignEntry is the annotation about a log entry.
type cosignEntry struct {
	SignedEntryTimestamp string
	Payload              struct {
		Body           string `json:"body"`
		IntegratedTime int64  `json:"integratedTime"`
		LogIndex       int64  `json:"logIndex"`
		LogID          string `json:"logID"`
	}
}

// logEntryDocument is dev.sigstore.rekor.v1.TransparencyLogEntry without a proof.
type logEntryDocument struct {
	LogIndex         string           `json:"logIndex"`
	LogID            keyIDDocument    `json:"logId"`
	KindVersion      kindDocument     `json:"kindVersion"`
	IntegratedTime   string           `json:"integratedTime"`
	InclusionPromise *promiseDocument `json:"inclusionPromise"`
	Body             string           `json:"canonicalizedBody"`
}

type keyIDDocument struct {
	KeyID string `json:"keyId"`
}

type kindDocument struct {
	Kind    string `json:"kind"`
	Version string `json:"version"`
}

type promiseDocument struct {
	SignedEntryTimestamp string `json:"signedEntryTimestamp"`
}

// ParseCosignLayer makes a bundle of an attestation as cosign 2 attached it by
// default: a DSSE envelope of one signature, and the annotations of its layer.
// The bundle is of version 0.1 and at most 4 MiB. Nothing is verified. A
// certificate or log entry that cannot be read is an error that wraps ErrFormat;
// other annotations are ignored, that of a timestamp among them, which is not one
// of the signature.
func ParseCosignLayer(envelope []byte, annotations map[string]string) (*Bundle, error) {
	doc := bundleDocument{MediaType: cosignBundleType, VerificationMaterial: &materialDocument{}, DSSEEnvelope: &envelopeDocument{}}
	if err := strictjson.UnmarshalLenient(envelope, doc.DSSEEnvelope, maxBundle); err != nil {
		return nil, formatError("envelope: %w", err)
	}
	material := doc.VerificationMaterial
	if text := annotations[cosignCertificate]; text == "" {
		material.PublicKey = &publicKeyDocument{}
	} else {
		block, err := onePEM([]byte(text))
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, formatError("annotation %s is not a certificate in PEM", cosignCertificate)
		}
		material.Certificate = &certificateDocument{RawBytes: base64.StdEncoding.EncodeToString(block.Bytes)}
	}
	if text := annotations[cosignLogEntry]; text != "" {
		entry, err := decodeCosignEntry(text)
		if err != nil {
			return nil, formatError("annotation %s: %w", cosignLogEntry, err)
		}
		material.TLogEntries = []json.RawMessage{entry}
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return ParseBundle(b)
}

func decodeCosignEntry(text string) (json.RawMessage, error) {
	var in cosignEntry
	if err := strictjson.UnmarshalLenient([]byte(text), &in, maxAnnotation); err != nil {
		return nil, err
	}
	logID, err := hex.DecodeString(in.Payload.LogID)
	if err != nil {
		return nil, fmt.Errorf("log id %q is not hexadecimal", clip(in.Payload.LogID))
	}
	body, err := decodeBase64("body", in.Payload.Body)
	if err != nil {
		return nil, err
	}
	if _, err := decodeBase64("signed entry timestamp", in.SignedEntryTimestamp); err != nil {
		return nil, err
	}
	var kind struct {
		Kind    string `json:"kind"`
		Version string `json:"apiVersion"`
	}
	if err := strictjson.UnmarshalLenient(body, &kind, maxAnnotation); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	return json.Marshal(logEntryDocument{
		LogIndex:         strconv.FormatInt(in.Payload.LogIndex, 10),
		LogID:            keyIDDocument{base64.StdEncoding.EncodeToString(logID)},
		KindVersion:      kindDocument{kind.Kind, kind.Version},
		IntegratedTime:   strconv.FormatInt(in.Payload.IntegratedTime, 10),
		InclusionPromise: &promiseDocument{in.SignedEntryTimestamp},
		Body:             in.Payload.Body,
	})
}
