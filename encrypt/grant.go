// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/opencontainers/go-digest"
)

// Bounds of a grant document (FORMAT.md §8.1). A document comes from a registry
// before anything vouches for it.
const (
	maxGrant      = 4 << 20
	maxRecipients = 1000
	maxBody       = 8 << 10
	maxParams     = 16
	maxParam      = 1 << 10
	maxTypeName   = 64
	keyIDSize     = 32
)

// A Grant is a grant document (FORMAT.md §8.1): the wrapped keys of one
// artifact. All of it is public; until a signature vouches for it, it is
// anybody's word.
type Grant struct {
	ArtifactID [16]byte
	Commitment [32]byte
	Manifest   digest.Digest
	Recipients []Stanza
}

// Matches reports whether g claims to be for the artifact of b. A grant that
// does not is to be ignored; one that does has proven nothing yet.
func (g *Grant) Matches(b Binding) bool {
	return g.ArtifactID == b.ArtifactID && g.Commitment == b.Commitment && g.Manifest == b.Manifest
}

type grantJSON struct {
	FormatVersion int          `json:"formatVersion"`
	ArtifactID    string       `json:"artifactId"`
	Commitment    string       `json:"commitment"`
	Manifest      string       `json:"manifest"`
	Recipients    []stanzaJSON `json:"recipients"`
}

type stanzaJSON struct {
	Type     string            `json:"type"`
	KeyID    string            `json:"keyId"`
	Scope    string            `json:"scope"`
	NotAfter string            `json:"notAfter,omitempty"`
	Params   map[string]string `json:"params,omitempty"`
	Body     string            `json:"body"`
	Sealed   string            `json:"sealed,omitempty"`
}

// ParseGrant reads a grant document. It refuses every document that has two
// readings or breaks a bound, but not entries of a type it does not know.
func ParseGrant(data []byte) (*Grant, error) {
	var doc grantJSON
	if err := strictjson.Unmarshal(data, &doc, maxGrant); err != nil {
		return nil, fmt.Errorf("encrypt: grant: %w", err)
	}
	if doc.FormatVersion != 1 {
		return nil, fmt.Errorf("encrypt: grant: format version %d, this reader knows 1", doc.FormatVersion)
	}
	if doc.Recipients == nil || len(doc.Recipients) > maxRecipients {
		return nil, fmt.Errorf("encrypt: grant: %d recipients, a list of at most %d is required", len(doc.Recipients), maxRecipients)
	}
	g := &Grant{Manifest: digest.Digest(doc.Manifest), Recipients: make([]Stanza, len(doc.Recipients))}
	if g.Manifest.Validate() != nil || g.Manifest.Algorithm() != digest.SHA256 {
		return nil, fmt.Errorf("encrypt: grant: manifest is not a sha256 digest")
	}
	if !decodeHex(g.ArtifactID[:], doc.ArtifactID) || !decodeHex(g.Commitment[:], doc.Commitment) {
		return nil, fmt.Errorf("encrypt: grant: artifactId and commitment are not 32 and 64 lower-case hex digits")
	}
	for i, r := range doc.Recipients {
		s, err := r.stanza()
		if err != nil {
			return nil, fmt.Errorf("encrypt: grant: recipient %d: %w", i, err)
		}
		g.Recipients[i] = s
	}
	return g, nil
}

func (r stanzaJSON) stanza() (s Stanza, err error) {
	s = Stanza{Type: r.Type, KeyID: r.KeyID, Scope: Scope(r.Scope)}
	if len(r.Params) > 0 {
		s.Params = r.Params
	}
	if r.NotAfter != "" {
		s.NotAfter, err = time.Parse(time.RFC3339, r.NotAfter)
		if err != nil || s.NotAfter.UTC().Format(time.RFC3339) != r.NotAfter || s.NotAfter.Nanosecond() != 0 {
			return s, fmt.Errorf("notAfter is not RFC 3339 in UTC and whole seconds")
		}
		s.NotAfter = s.NotAfter.UTC()
	}
	if s.Body, err = decodeBase64(r.Body); err != nil {
		return s, fmt.Errorf("body is not base64")
	}
	if r.Sealed != "" {
		if s.Sealed, err = decodeBase64(r.Sealed); err != nil {
			return s, fmt.Errorf("sealed is not base64")
		}
	}
	return s, s.check()
}

// check holds a stanza to the bounds of FORMAT.md §8.1, whether it was read
// from a document or returned by a Recipient.
func (s Stanza) check() error {
	if !validType(s.Type) {
		return fmt.Errorf("type is not 1 to %d of a-z, 0-9, '.' and '-'", maxTypeName)
	}
	var id [keyIDSize / 2]byte
	if !decodeHex(id[:], s.KeyID) {
		return fmt.Errorf("keyId is not %d lower-case hex digits", keyIDSize)
	}
	if s.Scope != ScopeArtifact && s.Scope != ScopeFiles {
		return fmt.Errorf("scope is neither %s nor %s", ScopeArtifact, ScopeFiles)
	}
	if (len(s.Sealed) > 0) != (s.Scope == ScopeFiles) {
		return fmt.Errorf("sealed goes with scope %s and with no other", ScopeFiles)
	}
	if !s.NotAfter.IsZero() && (s.NotAfter.Unix() <= 0 || s.NotAfter.Unix() > maxNotAfter) {
		return fmt.Errorf("notAfter is outside the years 1970 to 9999")
	}
	if len(s.Body) == 0 || len(s.Body) > maxBody {
		return fmt.Errorf("body has %d bytes, 1 to %d are allowed", len(s.Body), maxBody)
	}
	if len(s.Params) > maxParams {
		return fmt.Errorf("%d params, at most %d are allowed", len(s.Params), maxParams)
	}
	for k, v := range s.Params {
		if len(k)+len(v) > maxParam {
			return fmt.Errorf("a param has %d bytes, at most %d are allowed", len(k)+len(v), maxParam)
		}
	}
	return nil
}

func validType(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxTypeName
}

// Encode writes the document. It refuses what [ParseGrant] would.
func (g *Grant) Encode() ([]byte, error) {
	doc := grantJSON{
		FormatVersion: 1,
		ArtifactID:    hex.EncodeToString(g.ArtifactID[:]),
		Commitment:    hex.EncodeToString(g.Commitment[:]),
		Manifest:      string(g.Manifest),
		Recipients:    make([]stanzaJSON, len(g.Recipients)),
	}
	for i, s := range g.Recipients {
		r := stanzaJSON{Type: s.Type, KeyID: s.KeyID, Scope: string(s.Scope), Params: s.Params, Body: base64.StdEncoding.EncodeToString(s.Body), Sealed: base64.StdEncoding.EncodeToString(s.Sealed)}
		if !s.NotAfter.IsZero() {
			r.NotAfter = s.NotAfter.UTC().Format(time.RFC3339)
		}
		doc.Recipients[i] = r
	}
	data, err := json.Marshal(doc)
	if err != nil {
		panic("encrypt: grant: " + err.Error()) // strings and integers only
	}
	if _, err := ParseGrant(data); err != nil {
		return nil, err
	}
	return data, nil
}

// decodeHex fills dst from lower-case hex of exactly its length.
func decodeHex(dst []byte, s string) bool {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(dst) || hex.EncodeToString(b) != s {
		return false
	}
	copy(dst, b)
	return true
}

// decodeBase64 takes the one encoding that RFC 4648 §4 has for some bytes: the
// decoder alone skips line ends.
func decodeBase64(s string) ([]byte, error) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, err
	}
	if base64.StdEncoding.EncodeToString(b) != s {
		return nil, base64.CorruptInputError(0)
	}
	return b, nil
}
