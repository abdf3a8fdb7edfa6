// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// Profiles of an artifact (FORMAT.md §1).
const (
	ProfilePlain     = "plain"
	ProfileEncrypted = "encrypted"
)

// Release says under which name and tags an artifact was published (FORMAT.md
// §9.1). Without one, any artifact that a key ever signed could answer for any
// tag.
type Release struct {
	// Name is what the model is called, by default the repository path without host.
	Name string
	// Tags may be empty.
	Tags []string
	// Sequence only grows from one release of a name to the next, and is below 2^53.
	Sequence uint64
	// Expires, in whole seconds, is when the release must no longer be used.
	// Zero: never.
	Expires time.Time
	// Profile is ProfilePlain or ProfileEncrypted.
	Profile string
	// IndexDigest is the digest of the artifact's index layer.
	IndexDigest digest.Digest
}

// releaseDocument uses pointers where a missing member must not read as zero.
type releaseDocument struct {
	Name        string        `json:"name"`
	Tags        *[]string     `json:"tags"`
	Sequence    *uint64       `json:"sequence"`
	Expires     *string       `json:"expires,omitempty"`
	Profile     string        `json:"profile"`
	IndexDigest digest.Digest `json:"indexDigest"`
}

// tagForm is the grammar of tags in the OCI distribution specification.
var tagForm = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// NewRelease returns the release statement. An expiry is rounded down to whole
// seconds.
func NewRelease(r Release) (Statement, error) {
	if err := r.check(); err != nil {
		return Statement{}, formatError("release: %w", err)
	}
	doc := releaseDocument{Name: r.Name, Tags: &r.Tags, Sequence: &r.Sequence, Profile: r.Profile, IndexDigest: r.IndexDigest}
	if r.Tags == nil {
		doc.Tags = &[]string{}
	}
	if !r.Expires.IsZero() {
		expires := r.Expires.UTC().Format(time.RFC3339)
		doc.Expires = &expires
	}
	predicate, err := json.Marshal(doc)
	if err != nil {
		return Statement{}, err
	}
	return Statement{PredicateType: PredicateRelease, Predicate: predicate}, nil
}

// ParseRelease reads a release statement.
func ParseRelease(s Statement) (Release, error) {
	if s.PredicateType != PredicateRelease {
		return Release{}, formatError("predicate type %q, want %q", clip(s.PredicateType), PredicateRelease)
	}
	var doc releaseDocument
	if err := strictjson.Unmarshal(s.Predicate, &doc, maxStatement); err != nil {
		return Release{}, formatError("release: %w", err)
	}
	if doc.Tags == nil || doc.Sequence == nil {
		return Release{}, formatError("release: tags and sequence must be present")
	}
	r := Release{Name: doc.Name, Tags: *doc.Tags, Sequence: *doc.Sequence, Profile: doc.Profile, IndexDigest: doc.IndexDigest}
	if doc.Expires != nil {
		t, err := parseTime(*doc.Expires)
		if err != nil {
			return Release{}, formatError("release: expires: %w", err)
		}
		r.Expires = t
	}
	if err := r.check(); err != nil {
		return Release{}, formatError("release: %w", err)
	}
	return r, nil
}

func (r Release) check() error {
	if r.Name == "" || !printable(r.Name) {
		return fmt.Errorf("name %q: want 1 to %d printable bytes", clip(r.Name), maxName)
	}
	if len(r.Tags) > maxTags {
		return fmt.Errorf("%d tags, limit %d", len(r.Tags), maxTags)
	}
	for _, tag := range r.Tags {
		if !tagForm.MatchString(tag) {
			return fmt.Errorf("%q is not a tag", clip(tag))
		}
	}
	if r.Sequence > maxSequence {
		return fmt.Errorf("sequence %d, limit %d", r.Sequence, uint64(maxSequence))
	}
	if r.Profile != ProfilePlain && r.Profile != ProfileEncrypted {
		return fmt.Errorf("profile %q: want %q or %q", clip(r.Profile), ProfilePlain, ProfileEncrypted)
	}
	if r.IndexDigest == "" {
		return errors.New("no index digest: an artifact without an index has no release statement")
	}
	if err := checkDigest(r.IndexDigest); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}
