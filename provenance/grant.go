// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

type grantDocument struct {
	Grant struct {
		SHA256 string `json:"sha256"`
	} `json:"grant"`
}

// NewGrant returns the statement that vouches for a grant document, named by the
// digest of its bytes (FORMAT.md §8.5).
func NewGrant(document digest.Digest) (Statement, error) {
	if err := checkDigest(document); err != nil {
		return Statement{}, formatError("grant: %w", err)
	}
	var doc grantDocument
	doc.Grant.SHA256 = document.Encoded()
	predicate, err := json.Marshal(doc)
	if err != nil {
		return Statement{}, err
	}
	return Statement{PredicateType: PredicateGrant, Predicate: predicate}, nil
}

// ParseGrant reads a grant statement and returns the digest of the grant
// document that it vouches for.
func ParseGrant(s Statement) (digest.Digest, error) {
	if s.PredicateType != PredicateGrant {
		return "", formatError("predicate type %q, want %q", clip(s.PredicateType), PredicateGrant)
	}
	var doc grantDocument
	if err := strictjson.Unmarshal(s.Predicate, &doc, maxStatement); err != nil {
		return "", formatError("grant: %w", err)
	}
	d := digest.NewDigestFromEncoded(digest.SHA256, doc.Grant.SHA256)
	if err := checkDigest(d); err != nil {
		return "", formatError("grant: %w", err)
	}
	return d, nil
}
