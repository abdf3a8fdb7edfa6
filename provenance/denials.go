// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// PredicateDenials is a list of what must not be used any more (POLICY.md §7).
const PredicateDenials = "https://modelsec.github.io/denials/v1"

// DenialList is such a list. Its statement is about no artifact: the subject is
// the SHA-256 of the list's name.
type DenialList struct {
	// Name is what policies call the list.
	Name string
	// Sequence only grows from one issue of a name to the next, and is below 2^53.
	Sequence uint64
	// Issued and Expires, in whole seconds, bound when the list is in force. Both
	// are needed: a list that never ends could be withheld for ever.
	Issued, Expires time.Time
	// Entries are at most 65536.
	Entries []Denial
}

// Denial is one entry. Exactly one of Digest, Plaintext, Name, Key, Issuer with
// Subject, and Builder says what is denied.
type Denial struct {
	// Digest of a manifest or of an input of a build.
	Digest digest.Digest
	// Plaintext is a plaintext root, under whatever key it was encrypted since,
	// or the manifest digest of the plain artifact.
	Plaintext digest.Digest
	// Name denies its releases of sequence From to To, both included.
	Name     string
	From, To uint64
	// Key is the KeyID of a key.
	Key string
	// Issuer and Subject are those of an identity, exact.
	Issuer, Subject string
	// Since spares signatures by the key or the identity that a trusted party saw
	// before it; Until spares those by the identity that none saw before it (one by
	// a key can be stamped at any later time, so there is no such bound). Zero: no
	// bound. A signature without a trusted time is denied whatever they say.
	Since, Until time.Time
	// Builder is a builder id.
	Builder string
	// Reason is shown to those who are refused. May be empty.
	Reason string
}

// maxDenials is how many entries a list may have.
const maxDenials = 1 << 16

type denialListDocument struct {
	Name     string            `json:"name"`
	Sequence *uint64           `json:"sequence"`
	Issued   string            `json:"issued"`
	Expires  string            `json:"expires"`
	Entries  *[]denialDocument `json:"entries"`
}

type denialDocument struct {
	Digest    *digest.Digest `json:"digest,omitempty"`
	Plaintext *digest.Digest `json:"plaintext,omitempty"`
	Name      *string        `json:"name,omitempty"`
	From      *uint64        `json:"from,omitempty"`
	To        *uint64        `json:"to,omitempty"`
	Key       *string        `json:"key,omitempty"`
	Issuer    *string        `json:"issuer,omitempty"`
	Subject   *string        `json:"subject,omitempty"`
	Since     *string        `json:"since,omitempty"`
	Until     *string        `json:"until,omitempty"`
	Builder   *string        `json:"builder,omitempty"`
	Reason    *string        `json:"reason,omitempty"`
}

// NewDenials returns the statement of a list. Times are rounded down to whole
// seconds. Sign it with Encode over l.Subject.
func NewDenials(l DenialList) (Statement, error) {
	if err := l.check(); err != nil {
		return Statement{}, formatError("denial list: %w", err)
	}
	entries := make([]denialDocument, 0, len(l.Entries))
	for _, d := range l.Entries {
		entries = append(entries, d.document())
	}
	predicate, err := json.Marshal(denialListDocument{Name: l.Name, Sequence: &l.Sequence, Entries: &entries,
		Issued: l.Issued.UTC().Format(time.RFC3339), Expires: l.Expires.UTC().Format(time.RFC3339)})
	if err != nil {
		return Statement{}, err
	}
	s := Statement{PredicateType: PredicateDenials, Predicate: predicate}
	return s, s.check()
}

// ParseDenials reads the statement of a list.
func ParseDenials(s Statement) (DenialList, error) {
	if s.PredicateType != PredicateDenials {
		return DenialList{}, formatError("predicate type %q, want %q", clip(s.PredicateType), PredicateDenials)
	}
	var doc denialListDocument
	if err := strictjson.Unmarshal(s.Predicate, &doc, maxStatement); err != nil {
		return DenialList{}, formatError("denial list: %w", err)
	}
	l, err := doc.list()
	if err == nil {
		err = l.check()
	}
	if err != nil {
		return DenialList{}, formatError("denial list: %w", err)
	}
	return l, nil
}

// Subject is the digest that a statement of the list is about.
func (l DenialList) Subject() digest.Digest { return digest.FromString(l.Name) }

func (l DenialList) check() error {
	switch {
	case l.Name == "" || !printable(l.Name):
		return fmt.Errorf("name %q: want 1 to %d printable bytes", clip(l.Name), maxName)
	case l.Sequence > maxSequence:
		return fmt.Errorf("sequence %d, limit %d", l.Sequence, uint64(maxSequence))
	case l.Issued.IsZero() || l.Expires.IsZero():
		return errors.New("want the times issued and expires")
	case !l.Issued.Before(l.Expires):
		return errors.New("expires must be later than issued")
	case len(l.Entries) > maxDenials:
		return fmt.Errorf("%d entries, limit %d", len(l.Entries), maxDenials)
	}
	for i, d := range l.Entries {
		if err := d.check(); err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return nil
}

func (d Denial) check() error {
	kinds := 0
	for _, set := range []bool{d.Digest != "", d.Plaintext != "", d.Name != "", d.Key != "", d.Issuer != "" || d.Subject != "", d.Builder != ""} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return errors.New("want exactly one of digest, plaintext, name, key, issuer with subject, and builder")
	}
	for _, s := range []string{d.Name, d.Issuer, d.Subject, d.Builder, d.Reason} {
		if !printable(s) {
			return fmt.Errorf("%q: want at most %d printable bytes", clip(s), maxName)
		}
	}
	who := d.Key != "" || d.Issuer != ""
	switch {
	case (d.Issuer == "") != (d.Subject == ""):
		return errors.New("an identity needs both an issuer and a subject")
	case d.Name == "" && (d.From > 0 || d.To > 0):
		return errors.New("from and to are for a name")
	case d.Name != "" && (d.From > d.To || d.To > maxSequence):
		return fmt.Errorf("sequences %d to %d: want a range below 2^53", d.From, d.To)
	case !who && !(d.Since.IsZero() && d.Until.IsZero()):
		return errors.New("since and until are for a key or an identity")
	case d.Key != "" && !d.Until.IsZero():
		return errors.New("until is for an identity: a signature by a key can be stamped at any later time")
	case !d.Since.IsZero() && !d.Until.IsZero() && !d.Since.Before(d.Until):
		return errors.New("until must be later than since")
	case d.Key != "":
		return checkHex(d.Key)
	case d.Digest != "":
		return checkDigest(d.Digest)
	case d.Plaintext != "":
		return checkDigest(d.Plaintext)
	}
	return nil
}

func (d Denial) document() denialDocument {
	doc := denialDocument{Name: optional(d.Name), Key: optional(d.Key), Issuer: optional(d.Issuer), Subject: optional(d.Subject),
		Since: optionalTime(d.Since.Truncate(time.Second)), Until: optionalTime(d.Until.Truncate(time.Second)), Builder: optional(d.Builder), Reason: optional(d.Reason)}
	if d.Digest != "" {
		doc.Digest = &d.Digest
	}
	if d.Plaintext != "" {
		doc.Plaintext = &d.Plaintext
	}
	if d.Name != "" {
		doc.From, doc.To = &d.From, &d.To
	}
	return doc
}

func (doc denialListDocument) list() (DenialList, error) {
	if doc.Sequence == nil || doc.Entries == nil {
		return DenialList{}, errors.New("sequence and entries must be present")
	}
	l := DenialList{Name: doc.Name, Sequence: *doc.Sequence}
	var err error
	if l.Issued, err = parseTime(doc.Issued); err != nil {
		return DenialList{}, fmt.Errorf("issued: %w", err)
	}
	if l.Expires, err = parseTime(doc.Expires); err != nil {
		return DenialList{}, fmt.Errorf("expires: %w", err)
	}
	if len(*doc.Entries) > maxDenials {
		return DenialList{}, fmt.Errorf("%d entries, limit %d", len(*doc.Entries), maxDenials)
	}
	for i, e := range *doc.Entries {
		d, err := e.denial()
		if err != nil {
			return DenialList{}, fmt.Errorf("entry %d: %w", i, err)
		}
		l.Entries = append(l.Entries, d)
	}
	return l, nil
}

func (doc denialDocument) denial() (Denial, error) {
	d := Denial{}
	if (doc.Name == nil) != (doc.From == nil) || (doc.Name == nil) != (doc.To == nil) {
		return d, errors.New("name, from and to come together")
	}
	if doc.From != nil {
		d.From, d.To = *doc.From, *doc.To
	}
	for _, s := range []struct{ from, to *string }{
		{(*string)(doc.Digest), (*string)(&d.Digest)}, {(*string)(doc.Plaintext), (*string)(&d.Plaintext)}, {doc.Name, &d.Name}, {doc.Key, &d.Key},
		{doc.Issuer, &d.Issuer}, {doc.Subject, &d.Subject}, {doc.Builder, &d.Builder}, {doc.Reason, &d.Reason},
	} {
		if s.from == nil {
			continue
		}
		if *s.to = *s.from; *s.to == "" {
			return d, errors.New("a member is empty: leave it out")
		}
	}
	var err error
	if d.Since, err = optionalMoment(doc.Since); err != nil {
		return d, fmt.Errorf("since: %w", err)
	}
	if d.Until, err = optionalMoment(doc.Until); err != nil {
		return d, fmt.Errorf("until: %w", err)
	}
	return d, nil
}
