// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

const statementType = "https://in-toto.io/Statement/v1"

// statementTypeOld has the same members. cosign attest still writes it, whatever
// the predicate.
const statementTypeOld = "https://in-toto.io/Statement/v0.1"

// Statement is an in-toto statement (v1) without its subject, which is always
// one model manifest: Encode fills it in.
type Statement struct {
	// PredicateType is the URI that says what Predicate means.
	PredicateType string
	// Predicate is a JSON object.
	Predicate json.RawMessage
}

// StatementOptions are for DecodeStatement.
type StatementOptions struct {
	// MaxSubjects is how many subjects a statement may have, at most 1024. Zero
	// means one: a statement about two things lets one stand in for the other.
	MaxSubjects int
}

type subjectDocument struct {
	Digest map[string]string `json:"digest"`
}

type statementDocument struct {
	Type          string          `json:"_type"`
	Subject       json.RawMessage `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate,omitempty"`
}

// Encode returns the statement about one manifest as compact JSON. Equal
// statements have equal bytes.
func (s Statement) Encode(manifest digest.Digest) ([]byte, error) {
	if err := checkDigest(manifest); err != nil {
		return nil, fmt.Errorf("subject: %w", err)
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	subject, err := json.Marshal([]subjectDocument{{Digest: map[string]string{"sha256": manifest.Encoded()}}})
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(statementDocument{statementType, subject, s.PredicateType, s.Predicate})
	if err != nil {
		return nil, err
	}
	if len(b) > maxStatement {
		return nil, formatError("statement of %d bytes, limit %d", len(b), maxStatement)
	}
	return b, nil
}

// DecodeStatement parses the payload of an envelope and returns the statement
// and the SHA-256 digest of each of its subjects. Members that in-toto does not
// define are ignored, repeated ones are errors.
func DecodeStatement(payload []byte, o *StatementOptions) (Statement, []digest.Digest, error) {
	limit := 1
	if o != nil && o.MaxSubjects > 0 {
		limit = min(o.MaxSubjects, maxSubjects)
	}
	var doc statementDocument
	if err := strictjson.UnmarshalLenient(payload, &doc, maxStatement); err != nil {
		return Statement{}, nil, formatError("statement: %w", err)
	}
	if doc.Type != statementType && doc.Type != statementTypeOld {
		return Statement{}, nil, formatError("statement type %q, want %q", clip(doc.Type), statementType)
	}
	subjects, err := decodeSubjects(doc.Subject, limit)
	if err != nil {
		return Statement{}, nil, formatError("statement: %w", err)
	}
	s := Statement{PredicateType: doc.PredicateType, Predicate: doc.Predicate}
	if string(s.Predicate) == "null" {
		s.Predicate = nil
	}
	if err := s.check(); err != nil {
		return Statement{}, nil, err
	}
	return s, subjects, nil
}

func (s Statement) check() error {
	if s.PredicateType == "" || !printable(s.PredicateType) {
		return formatError("statement has no usable predicate type: want a URI of at most %d bytes", maxName)
	}
	if len(s.Predicate) == 0 {
		return nil
	}
	var object map[string]json.RawMessage
	if err := strictjson.UnmarshalLenient(s.Predicate, &object, maxStatement); err != nil {
		return formatError("predicate of type %s: %w", s.PredicateType, err)
	}
	if object == nil {
		return formatError("predicate of type %s is null, want an object", s.PredicateType)
	}
	return nil
}

// decodeSubjects reads subjects one at a time, so that a list of a hundred
// thousand costs what the limit allows and no more.
func decodeSubjects(list json.RawMessage, limit int) ([]digest.Digest, error) {
	dec := json.NewDecoder(bytes.NewReader(list))
	if tok, err := dec.Token(); err != nil || tok != json.Delim('[') {
		return nil, errors.New("no list of subjects")
	}
	var subjects []digest.Digest
	for dec.More() {
		if len(subjects) == limit {
			return nil, fmt.Errorf("more than %d subjects", limit)
		}
		var element json.RawMessage
		if err := dec.Decode(&element); err != nil {
			return nil, err
		}
		var s subjectDocument
		if err := strictjson.UnmarshalLenient(element, &s, maxStatement); err != nil {
			return nil, fmt.Errorf("subject %d: %w", len(subjects), err)
		}
		d, err := s.sha256()
		if err != nil {
			return nil, fmt.Errorf("subject %d: %w", len(subjects), err)
		}
		subjects = append(subjects, d)
	}
	if len(subjects) == 0 {
		return nil, errors.New("no subject")
	}
	return subjects, nil
}

// sha256 returns the one digest that version 1 compares. A second digest of an
// algorithm that other tools compare would let the subject name two things, so
// it is refused rather than ignored (RULES K39).
func (s subjectDocument) sha256() (digest.Digest, error) {
	for _, other := range []string{"sha384", "sha512"} {
		if _, ok := s.Digest[other]; ok {
			return "", fmt.Errorf("has a %s digest, which nothing here compares: want sha256 alone", other)
		}
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, s.Digest["sha256"])
	if err := checkDigest(d); err != nil {
		return "", err
	}
	return d, nil
}

// checkDigest wants sha256 and 64 lower-case hexadecimal digits.
func checkDigest(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", clip(string(d)), err)
	}
	if d.Algorithm() != digest.SHA256 {
		return fmt.Errorf("digest %q: only sha256 is supported", clip(string(d)))
	}
	return nil
}
