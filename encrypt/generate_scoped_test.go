// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// seal makes an entry of scope files with any plaintext as its list.
func (m grantMaker) seal(plaintext string) Stanza {
	m.t.Helper()
	grantKey := NewKey()
	defer grantKey.Close()
	b := m.b.normal(ScopeFiles)
	var sealed []byte
	err := grantKey.dek.use(func(key []byte) error {
		inner := filesKey(key, b)
		sealed = gcm(&inner).Seal(nil, nil, []byte(plaintext), filesAAD(b))
		return nil
	})
	if err != nil {
		m.t.Fatal(err)
	}
	stanzas, err := wrap(m.t.Context(), grantKey.dek, b, sealed, []Recipient{m.id.Recipient()})
	if err != nil {
		m.t.Fatal(err)
	}
	return stanzas[0]
}

// generateScoped makes further grants of scope files (FORMAT.md §8.6).
func generateScoped(t *testing.T) {
	m := newGrantMaker(t, TypeMLKEM768X25519)
	const files = `[{"path":"shard-1.safetensors","role":"weight","size":9,"runs":[[0,0,0,5],[5,3,0,4]]},{"path":"config.json","role":"weight.config","size":2,"runs":[[0,4,0,2]]}]`
	layers := []uint32{0, 3, 4}
	stanzas, err := WrapFiles(t.Context(), m.key, m.b, json.RawMessage(files), layers, m.id.Recipient())
	if err != nil {
		t.Fatal(err)
	}
	s := stanzas[0]
	scope := [2]string{"scope", "files"}
	good := [][2]string{scope, {"files", files}}
	keys := make(map[uint32]string)
	for _, layer := range layers {
		k, err := m.key.partKey(m.b.ArtifactID, layer)
		if err != nil {
			t.Fatal(err)
		}
		keys[layer] = base64.StdEncoding.EncodeToString(k[:])
		good = append(good, [2]string{"layer-key", fmt.Sprintf("%d %s", layer, hex.EncodeToString(k[:]))})
	}
	m.emit("scoped-good", "success", "two files in three layers", m.doc(s), good...)
	m.emit("scoped-good-behind-artifact", "success", "an entry of scope artifact for somebody else comes first", m.doc(m.wrapPayloadFor(TypeP256), s), good...)

	late := m
	late.now = m.b.NotAfter.Add(time.Second)
	late.emit("scoped-expired", "expired", "the clock is a second past notAfter", m.doc(s), scope)
	edited := s
	edited.NotAfter = s.NotAfter.Add(time.Hour)
	m.emit("scoped-expiry-edited", "decrypt failure", "notAfter of the entry is later than what was wrapped", m.doc(edited), scope)
	stolen := m
	stolen.b.Manifest = digest.FromString("the manifest of a thief")
	stolen.emit("scoped-carried-over", "decrypt failure", "an entry of a genuine grant, carried into a document for another manifest", stolen.doc(s), scope)
	whole := m.wrap(m.b)
	whole.Scope, whole.Sealed = ScopeFiles, s.Sealed
	m.emit("scoped-relabelled", "decrypt failure", "an entry of scope artifact that says it is of scope files", m.doc(whole), scope)
	relabelled := s
	relabelled.Scope, relabelled.Sealed = ScopeArtifact, nil
	m.emit("scoped-relabelled-artifact", "decrypt failure", "an entry of scope files that says it is of scope artifact", m.doc(relabelled))

	key := func(layer uint32) string { return fmt.Sprintf(`{"layer":%d,"key":"%s"}`, layer, keys[layer]) }
	list := func(files string, keys ...string) string {
		return `{"files":` + files + `,"keys":[` + strings.Join(keys, ",") + `]}`
	}
	for _, c := range []struct{ name, comment, plaintext string }{
		{"no-keys", "no keys", list(files)},
		{"keys-missing", "no member keys", `{"files":` + files + `}`},
		{"files-missing", "no member files", `{"keys":[` + key(0) + `]}`},
		{"files-object", "files is not a list", list("{}", key(0))},
		{"files-null", "files is null", list("null", key(0))},
		{"layer-twice", "the key of a layer twice", list(files, key(0), key(0))},
		{"layer-4096", "the key of layer 4096", list(files, strings.Replace(key(0), ":0,", ":4096,", 1))},
		{"layer-negative", "the key of layer -1", list(files, strings.Replace(key(0), ":0,", ":-1,", 1))},
		{"key-short", "a key of 31 bytes", list(files, `{"layer":0,"key":"`+base64.StdEncoding.EncodeToString(make([]byte, 31))+`"}`)},
		{"key-unpadded", "a key in base64 without padding", list(files, strings.Replace(key(0), "=", "", 1))},
		{"unknown-member", "a member that the format does not have", strings.Replace(list(files, key(0)), "{", `{"comment":"",`, 1)},
		{"repeated-member", "keys twice", strings.Replace(list(files, key(0)), "{", `{"keys":[],`, 1)},
		{"trailing", "a byte follows the list", list(files, key(0)) + "x"},
		{"not-json", "the list is not JSON", "x"},
	} {
		m.emit("scoped-list-"+c.name, "format failure", "sealed list: "+c.comment, m.doc(m.seal(c.plaintext)), scope)
	}
}
