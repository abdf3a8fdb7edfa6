// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/scrypt"
)

// grantMaker makes the vectors of one artifact and one reader.
type grantMaker struct {
	t   *testing.T
	key *Key
	b   Binding
	now time.Time
	id  *HPKEIdentity
}

func (m grantMaker) emit(name, expect, comment, doc string, more ...[2]string) {
	m.t.Helper()
	emit(m.t, "grant", name, expect, append([][2]string{
		{"comment", comment},
		{"artifact-id", hex.EncodeToString(m.b.ArtifactID[:])},
		{"commitment", hex.EncodeToString(m.b.Commitment[:])},
		{"manifest", string(m.b.Manifest)},
		{"now", m.now.Format(time.RFC3339)},
		{"identity-type", m.id.recipient.stanzaType},
		{"identity", hex.EncodeToString(m.id.secret())},
	}, more...), doc)
}

func (m grantMaker) doc(stanzas ...Stanza) string {
	m.t.Helper()
	doc, err := (&Grant{m.b.ArtifactID, m.b.Commitment, m.b.Manifest, stanzas}).Encode()
	if err != nil {
		m.t.Fatal(err)
	}
	return string(doc)
}

func (m grantMaker) wrap(b Binding) Stanza {
	m.t.Helper()
	stanzas, err := WrapKey(m.t.Context(), m.key, b, m.id.Recipient())
	if err != nil {
		m.t.Fatal(err)
	}
	return stanzas[0]
}

// wrapPayload wraps a payload that change had its way with.
func (m grantMaker) wrapPayload(change func(p []byte)) Stanza {
	m.t.Helper()
	payload := make([]byte, payloadSize)
	if err := m.key.dek.use(func(dek []byte) error { return m.b.fill(payload, dek) }); err != nil {
		m.t.Fatal(err)
	}
	change(payload)
	s, err := m.id.Recipient().Wrap(m.t.Context(), payload, m.b)
	if err != nil {
		m.t.Fatal(err)
	}
	s.Scope, s.NotAfter = ScopeArtifact, m.b.NotAfter
	return s
}

func newGrantMaker(t *testing.T, stanzaType string) grantMaker {
	t.Helper()
	id, err := GenerateIdentity(stanzaType)
	if err != nil {
		t.Fatal(err)
	}
	m := grantMaker{t: t, key: NewKey(), id: id, now: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}
	rand.Read(m.b.ArtifactID[:])
	m.b.Commitment = m.key.Commitment(m.b.ArtifactID)
	m.b.Manifest = digest.FromString("the model manifest")
	m.b.NotAfter = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	return m
}

func generateGrants(t *testing.T) {
	for _, stanzaType := range []string{TypeMLKEM768X25519, TypeMLKEM768P256, TypeMLKEM1024P384, TypeP256} {
		m := newGrantMaker(t, stanzaType)
		m.emit("good-"+stanzaType, "success", "one recipient, not expired", m.doc(m.wrap(m.b)))
	}
	m := newGrantMaker(t, TypeP256)
	s := m.wrap(m.b)
	good := m.doc(s)

	noExpiry := m.b
	noExpiry.NotAfter = time.Time{}
	m.emit("good-no-expiry", "success", "notAfter is absent", m.doc(m.wrap(noExpiry)))
	atLimit := m
	atLimit.now = m.b.NotAfter
	atLimit.emit("good-last-second", "success", "the clock is at notAfter", good)
	unknown := s
	unknown.Type, unknown.Params = "aws-kms", map[string]string{"arn": "arn:aws:kms:::key/1"}
	m.emit("good-behind-others", "success", "two entries of other types come first", m.doc(unknown, m.wrapPayloadFor("hpke-mlkem768-x25519"), s))

	emitBoundGrants(m, s, good)
	emitMalformedGrants(m, good)
	emitFileGrants(m)
}

// wrapPayloadFor is an entry for somebody else of another type.
func (m grantMaker) wrapPayloadFor(stanzaType string) Stanza {
	other := m
	var err error
	if other.id, err = GenerateIdentity(stanzaType); err != nil {
		m.t.Fatal(err)
	}
	return other.wrap(m.b)
}

// emitBoundGrants are well-formed grants that do not open this artifact.
func emitBoundGrants(m grantMaker, s Stanza, good string) {
	m.emit("empty", "no key", "no recipients", m.doc())
	m.emit("for-others", "no key", "the one entry is for another key", m.doc(m.wrapPayloadFor(TypeP256)))
	m.emit("unknown-type", "no key", "the one entry has a type that no reader knows", strings.Replace(good, TypeP256, "hpke-p521", 1))
	m.emit("other-key-id", "no key", "the key id of the entry is another", strings.Replace(good, s.KeyID, "00"+s.KeyID[2:], 1))
	thief := digest.FromString("the manifest of a thief")
	m.emit("other-manifest", "other artifact", "the document is for another manifest", strings.Replace(good, string(m.b.Manifest), string(thief), 1))
	m.emit("other-artifact-id", "other artifact", "the document is for another artifactId", strings.Replace(good, hex.EncodeToString(m.b.ArtifactID[:]), strings.Repeat("0", 32), 1))
	m.emit("other-commitment", "other artifact", "the document is for another commitment", strings.Replace(good, hex.EncodeToString(m.b.Commitment[:]), strings.Repeat("0", 64), 1))
	stolen := m
	stolen.b.Manifest = thief
	stolen.emit("carried-over", "decrypt failure", "an entry of a genuine grant, carried into a document for another manifest", stolen.doc(s))

	later := s
	later.NotAfter = s.NotAfter.Add(time.Hour)
	m.emit("expiry-edited", "decrypt failure", "notAfter of the entry is later than what was wrapped", m.doc(later))
	never := s
	never.NotAfter = time.Time{}
	m.emit("expiry-removed", "decrypt failure", "notAfter of the entry was removed", m.doc(never))
	expired := m
	expired.now = m.b.NotAfter.Add(time.Second)
	expired.emit("expired", "expired", "the clock is a second past notAfter", good)

	for name, at := range map[string]int{"enc": 10, "ciphertext": 70, "tag": 208} {
		bad := s
		bad.Body = bytes.Clone(s.Body)
		bad.Body[at] ^= 1
		m.emit("body-"+name, "decrypt failure", fmt.Sprintf("a bit of byte %d of the body is flipped", at), m.doc(bad))
	}
	short, params := s, s
	short.Body = s.Body[:208]
	m.emit("body-short", "decrypt failure", "the body lacks its last byte", m.doc(short))
	params.Params = map[string]string{"kem": "x"}
	m.emit("params-on-hpke", "decrypt failure", "an HPKE entry has params", m.doc(params))

	// Each of these is a payload that a mechanism without associated data
	// could have been given; the HPKE layer around it is genuine.
	for _, c := range []struct {
		name    string
		at      int
		comment string
	}{
		{"magic", 0, "bytes 0 to 4 are not MSG1"}, {"scope", 4, "scope 1"}, {"reserved", 7, "a reserved byte is set"}, {"expiry", 15, "another notAfter"},
		{"artifact", 16, "another artifactId"}, {"manifest", 32, "another manifest"}, {"commitment", 64, "another commitment"}, {"key", 96, "another data key"},
	} {
		bad := m.wrapPayload(func(p []byte) { p[c.at] ^= 1 })
		m.emit("payload-"+c.name, "key mismatch", "wrapped bytes: "+c.comment, m.doc(bad))
	}
}

// emitMalformedGrants are documents that no reader takes.
func emitMalformedGrants(m grantMaker, good string) {
	body := good[strings.Index(good, `"body":"`)+8 : strings.LastIndex(good, `"}]}`)]
	recipient := good[strings.Index(good, `{"type"`):strings.LastIndex(good, `]}`)]
	keyID := good[strings.Index(good, `"keyId":"`)+9:][:32]
	replace := func(old, new string) string {
		m.t.Helper()
		if strings.Count(good, old) != 1 {
			m.t.Fatalf("%q occurs %d times", old, strings.Count(good, old))
		}
		return strings.Replace(good, old, new, 1)
	}
	params := func(n int) string {
		p := make(map[string]string)
		for i := range n {
			p[fmt.Sprint(i)] = ""
		}
		b, err := json.Marshal(p)
		if err != nil {
			m.t.Fatal(err)
		}
		return string(b)
	}
	withParams := func(p string) string { return replace(`"body":`, `"params":`+p+`,"body":`) }
	const version, expiry = `"formatVersion":1`, `"notAfter":"2027-01-01T00:00:00Z"`
	manifest := string(m.b.Manifest)
	for _, c := range []struct{ name, comment, doc string }{
		{"version", "formatVersion 2", replace(version, `"formatVersion":2`)},
		{"version-float", "formatVersion 1.0", replace(version, `"formatVersion":1.0`)},
		{"version-missing", "no formatVersion", replace(version+",", "")},
		{"repeated-key", "formatVersion twice", replace(version, version+","+version)},
		{"repeated-key-in-recipient", "scope twice", replace(`"scope":"artifact"`, `"scope":"artifact","scope":"artifact"`)},
		{"repeated-param", "a param twice", withParams(`{"a":"1","a":"1"}`)},
		{"key-in-other-case", "formatversion", replace(version, `"formatversion":1`)},
		{"unknown-member", "a member that the format does not have", replace(version, version+`,"comment":""`)},
		{"unknown-member-in-recipient", "a member of an entry that the format does not have", replace(`"scope":`, `"comment":"","scope":`)},
		{"null", "notAfter is null", replace(expiry, `"notAfter":null`)},
		{"trailing", "a byte follows the document", good + "x"},
		{"second-document", "a document follows the document", good + good},
		{"truncated", "the last byte is missing", good[:len(good)-1]},
		{"not-utf8", "a param is not UTF-8", withParams("{\"a\":\"\xff\"}")},
		{"array", "the document is an array", "[" + good + "]"},
		{"artifact-id-upper", "artifactId in upper case", replace(hex.EncodeToString(m.b.ArtifactID[:]), strings.ToUpper(hex.EncodeToString(m.b.ArtifactID[:])))},
		{"artifact-id-short", "artifactId of 15 bytes", replace(hex.EncodeToString(m.b.ArtifactID[:]), hex.EncodeToString(m.b.ArtifactID[1:]))},
		{"commitment-long", "commitment of 33 bytes", replace(hex.EncodeToString(m.b.Commitment[:]), hex.EncodeToString(m.b.Commitment[:])+"00")},
		{"manifest-sha512", "manifest is a SHA-512", replace(manifest, "sha512:"+strings.Repeat("ab", 64))},
		{"manifest-upper", "manifest in upper case", replace(manifest, "sha256:"+strings.ToUpper(manifest[7:]))},
		{"recipients-missing", "no recipients member", replace(`,"recipients":[`+recipient+`]`, "")},
		{"recipients-object", "recipients is not a list", replace("["+recipient+"]", recipient)},
		{"type-missing", "an entry without type", replace(`"type":"hpke-p256",`, "")},
		{"type-upper", "a type in upper case", replace("hpke-p256", "HPKE-P256")},
		{"type-long", "a type of 65 bytes", replace("hpke-p256", strings.Repeat("a", 65))},
		{"key-id-upper", "a key id in upper case", replace(keyID, strings.Repeat("A", 32))},
		{"key-id-short", "a key id of 31 digits", replace(keyID, keyID[1:])},
		{"scope-unknown", "scope tensor", replace(`"scope":"artifact"`, `"scope":"tensor"`)},
		{"scope-missing", "an entry without scope", replace(`"scope":"artifact",`, "")},
		{"sealed-without-files", "sealed in scope artifact", replace(`"body":`, `"sealed":"AAAA","body":`)},
		{"files-without-sealed", "scope files without sealed", replace(`"scope":"artifact"`, `"scope":"files"`)},
		{"expiry-offset", "notAfter with an offset", replace(expiry, `"notAfter":"2027-01-01T00:00:00+00:00"`)},
		{"expiry-fraction", "notAfter with a fraction", replace(expiry, `"notAfter":"2027-01-01T00:00:00.0Z"`)},
		{"expiry-epoch", "notAfter is second 0", replace(expiry, `"notAfter":"1970-01-01T00:00:00Z"`)},
		{"expiry-number", "notAfter is a number", replace(expiry, `"notAfter":1798761600`)},
		{"expiry-leap", "notAfter on a day that does not exist", replace(expiry, `"notAfter":"2027-02-29T00:00:00Z"`)},
		{"body-empty", "an empty body", replace(body, "")},
		{"body-unpadded", "base64 without padding", replace(`"`+body+`"`, `"`+strings.TrimRight(base64.StdEncoding.EncodeToString([]byte{1}), "=")+`"`)},
		{"body-line-end", "base64 with a line end", replace(body, body[:4]+`\n`+body[4:])},
		{"body-loose-bits", "base64 with bits that mean nothing", replace(body, "AB==")},
		{"body-over-8k", "a body of 8193 bytes", replace(body, base64.StdEncoding.EncodeToString(make([]byte, 8193)))},
		{"params-17", "17 params", withParams(params(17))},
		{"param-over-1k", "a param of 1025 bytes, key and value together", withParams(`{"a":"` + strings.Repeat("x", 1024) + `"}`)},
		{"param-number", "a param that is no string", withParams(`{"a":1}`)},
	} {
		m.emit("malformed-"+c.name, "format failure", c.comment, c.doc)
	}
	m.emit("good-16-params", "decrypt failure", "16 params are within bounds, on an HPKE entry they are an error", withParams(params(16)))
}

// emitFileGrants are grants of scope files (FORMAT.md §8.6).
func emitFileGrants(m grantMaker) {
	const files = `[{"path":"lora.safetensors","role":"weight","size":5,"runs":[[0,7,0,5]]}]`
	stanzas, err := WrapFiles(m.t.Context(), m.key, m.b, json.RawMessage(files), []uint32{7}, m.id.Recipient())
	if err != nil {
		m.t.Fatal(err)
	}
	layer, err := m.key.partKey(m.b.ArtifactID, 7)
	if err != nil {
		m.t.Fatal(err)
	}
	scope := [2]string{"scope", "files"}
	m.emit("files-good", "success", "scope files, one layer", m.doc(stanzas[0]), scope, [2]string{"files", files}, [2]string{"layer-key", "7 " + hex.EncodeToString(layer[:])})
	m.emit("files-for-artifact", "no key", "scope files does not open the whole artifact", m.doc(stanzas[0]))
	m.emit("artifact-for-files", "no key", "scope artifact is no entry of scope files", m.doc(m.wrap(m.b)), scope)
	bad := stanzas[0]
	bad.Sealed = bytes.Clone(bad.Sealed)
	bad.Sealed[20] ^= 1
	m.emit("files-sealed-bit", "decrypt failure", "a bit of the sealed list is flipped", m.doc(bad), scope)
	other, err := WrapFiles(m.t.Context(), m.key, m.b, json.RawMessage(files), []uint32{7}, m.id.Recipient())
	if err != nil {
		m.t.Fatal(err)
	}
	other[0].Sealed = stanzas[0].Sealed
	m.emit("files-sealed-of-other-grant", "decrypt failure", "the sealed list is the one of another grant", m.doc(other[0]), scope)
}

func generateKeyFiles(t *testing.T) {
	for _, stanzaType := range []string{TypeMLKEM768X25519, TypeMLKEM768P256, TypeMLKEM1024P384, TypeP256} {
		m := newGrantMaker(t, stanzaType)
		public := hex.EncodeToString(m.id.recipient.key.Bytes())
		private := hex.EncodeToString(m.id.secret())
		emit(t, "keyfile", "identity-"+stanzaType, "success", [][2]string{{"comment", "a private key"}, {"private", private}, {"public", public}}, m.id.PEM())
		emit(t, "keyfile", "recipient-"+stanzaType, "success", [][2]string{{"comment", "a public key"}, {"public", public}}, m.id.Recipient().PEM())
	}
	m := newGrantMaker(t, TypeP256)
	private, text := hex.EncodeToString(m.id.secret()), m.id.PEM()
	header := "Type: " + TypeP256 + "\n"
	// The least cost that the format has, so that readers test quickly.
	head := append([]byte{1, minLogN}, bytes.Repeat([]byte{7}, saltSize)...)
	out, err := scrypt.Key([]byte("correct horse"), head[2:], 1<<minLogN, 8, 1, keySize)
	if err != nil {
		t.Fatal(err)
	}
	key := [keySize]byte(out)
	encrypted := gcm(&key).Seal(head, nil, m.id.secret(), identityAAD(TypeP256))
	locked := encodeKeyFile(labelEncrypted, TypeP256, encrypted)
	costly := bytes.Clone(encrypted)
	costly[1] = maxLogN + 1
	for _, c := range []struct{ name, expect, comment, passphrase, text string }{
		{"encrypted", "success", "a private key under a passphrase", "correct horse", locked},
		{"encrypted-wrong-passphrase", "decrypt failure", "the passphrase is another", "wrong horse", locked},
		{"encrypted-other-type", "decrypt failure", "the type was exchanged", "correct horse", strings.Replace(locked, TypeP256, TypeMLKEM768P256, 1)},
		{"encrypted-too-costly", "format failure", "logN 21", "correct horse", encodeKeyFile(labelEncrypted, TypeP256, costly)},
		{"two-keys", "format failure", "two keys", "", text + text},
		{"no-type", "format failure", "no header Type", "", strings.Replace(text, header+"\n", "", 1)},
		{"other-header", "format failure", "a second header", "", strings.Replace(text, header, header+"Comment: x\n", 1)},
		{"unknown-type", "format failure", "a type that the format does not have", "", strings.Replace(text, TypeP256, "hpke-p521", 1)},
		{"garbage-before", "format failure", "text before the key", "", "x\n" + text},
		{"short", "format failure", "a private key of 31 bytes", "", encodeKeyFile(labelIdentity, TypeP256, m.id.secret()[1:])},
	} {
		h := [][2]string{{"comment", c.comment}, {"private", private}}
		if c.passphrase != "" {
			h = append(h, [2]string{"passphrase", c.passphrase})
		}
		emit(t, "keyfile", c.name, c.expect, h, c.text)
	}
}
