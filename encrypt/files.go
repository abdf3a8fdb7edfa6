// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/modelsec/modelsec-go/internal/floe"
	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/opencontainers/go-digest"
)

const (
	filesLabel = "modelsec/v1/grant-files"
	// maxLayers is the most layers of a manifest (FORMAT.md §2).
	maxLayers = 4096
)

// filesJSON is the plaintext of a sealed file list (FORMAT.md §8.6).
type filesJSON struct {
	Files json.RawMessage `json:"files"`
	Keys  []layerKeyJSON  `json:"keys"`
}

type layerKeyJSON struct {
	Layer uint32 `json:"layer"`
	Key   string `json:"key"`
}

// WrapFiles wraps the keys of some layers for the recipients, with the scope
// [ScopeFiles] and the expiry of b (FORMAT.md §8.6). files is the JSON of the
// list that the recipients see; layers are the ordinals of all layers that
// those files touch, in any order, each once.
func WrapFiles(ctx context.Context, key *Key, b Binding, files json.RawMessage, layers []uint32, recipients ...Recipient) ([]Stanza, error) {
	if err := key.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
		return nil, err
	}
	b = b.normal(ScopeFiles)
	if _, err := b.bound(); err != nil {
		return nil, err
	}
	doc := filesJSON{Files: files}
	for _, layer := range slices.Sorted(slices.Values(layers)) {
		k, err := key.partKey(b.ArtifactID, layer)
		if err != nil {
			return nil, err
		}
		doc.Keys = append(doc.Keys, layerKeyJSON{layer, base64.StdEncoding.EncodeToString(k[:])})
		clear(k[:])
	}
	plaintext, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encrypt: file list: %w", err)
	}
	defer clear(plaintext)
	check, err := parseFiles(b.ArtifactID, plaintext)
	if err != nil {
		return nil, err
	}
	check.Close()

	var grantKey [keySize]byte
	defer clear(grantKey[:])
	rand.Read(grantKey[:])
	inner := filesKey(grantKey[:], b)
	defer clear(inner[:])
	sealed := gcm(&inner).Seal(nil, nil, plaintext, filesAAD(b))
	return wrap(ctx, grantKey[:], b, sealed, recipients)
}

// UnwrapFiles is [UnwrapKey] for entries of [ScopeFiles]. The file list that it
// returns is the granter's word: whoever holds the data key could have written
// it. Each layer key proves itself against the header in the signed index when
// [NewPartOpener] gets it.
func UnwrapFiles(ctx context.Context, entries []Stanza, b Binding, now time.Time, identities ...Identity) (*FileKeys, error) {
	var found *FileKeys
	err := unwrap(ctx, entries, b.normal(ScopeFiles), now, identities, func(grantKey []byte, s Stanza) error {
		inner := filesKey(grantKey, b)
		defer clear(inner[:])
		plaintext, err := gcm(&inner).Open(nil, nil, s.Sealed, filesAAD(b))
		if err != nil {
			return fmt.Errorf("sealed file list: %w", ErrDecrypt)
		}
		defer clear(plaintext)
		found, err = parseFiles(b.ArtifactID, plaintext)
		return err
	})
	return found, err
}

// filesKey is HKDF-Expand(grant key, label || 0x00 || artifactId || manifest).
func filesKey(grantKey []byte, b Binding) [keySize]byte {
	return expand(grantKey, filesLabel, b.ArtifactID, manifestBytes(b.Manifest)...)
}

func filesAAD(b Binding) []byte {
	return sectionAAD(filesLabel, b.ArtifactID, manifestBytes(b.Manifest)...)
}

// manifestBytes returns the 32 bytes of a digest that was validated.
func manifestBytes(d digest.Digest) []byte {
	b, err := hex.DecodeString(d.Encoded())
	if err != nil {
		panic("encrypt: unchecked digest: " + err.Error())
	}
	return b
}

func parseFiles(artifactID [16]byte, plaintext []byte) (*FileKeys, error) {
	var doc filesJSON
	if err := strictjson.Unmarshal(plaintext, &doc, maxGrant); err != nil {
		return nil, fmt.Errorf("encrypt: file list: %w", err)
	}
	if len(doc.Files) == 0 || doc.Files[0] != '[' || len(doc.Keys) == 0 || len(doc.Keys) > maxLayers {
		return nil, fmt.Errorf("encrypt: file list: files and 1 to %d keys are required, %d keys found", maxLayers, len(doc.Keys))
	}
	// All keys share one secret, so that a grant locks one page, not thousands.
	keys := make([]byte, 0, len(doc.Keys)*keySize)
	defer func() { clear(keys) }()
	offsets := make(map[uint32]int, len(doc.Keys))
	for _, e := range doc.Keys {
		k, err := decodeBase64(e.Key)
		_, repeated := offsets[e.Layer]
		if err != nil || len(k) != keySize || e.Layer >= maxLayers || repeated {
			return nil, fmt.Errorf("encrypt: file list: the key of layer %d is repeated, out of range or not %d bytes", e.Layer, keySize)
		}
		offsets[e.Layer] = len(keys)
		keys = append(keys, k...)
		clear(k)
	}
	return &FileKeys{artifactID, slices.Clone(doc.Files), offsets, newSecret(keys)}, nil
}

// FileKeys are the keys of some layers of one artifact. It is safe for
// concurrent use, formats as a fixed text, and wipes its keys on Close.
type FileKeys struct {
	artifactID [16]byte
	files      json.RawMessage
	offsets    map[uint32]int // of the key of a layer in keys
	keys       *secret
}

// Files returns the JSON of the file list (FORMAT.md §5.1), unchecked.
func (f *FileKeys) Files() json.RawMessage { return slices.Clone(f.files) }

// Layers returns the ordinals of the layers that f has keys of, ascending.
func (f *FileKeys) Layers() []uint32 { return slices.Sorted(maps.Keys(f.offsets)) }

// Close wipes the keys. Openers made from them stay usable; new ones fail with
// fs.ErrClosed.
func (f *FileKeys) Close() error {
	f.keys.close()
	return nil
}

func (f *FileKeys) partKey(artifactID [16]byte, layer uint32) (out [floe.KeySize]byte, err error) {
	at, ok := f.offsets[layer]
	if !ok || artifactID != f.artifactID {
		return out, fmt.Errorf("%w: the grant does not cover layer %d", ErrNoKey, layer)
	}
	err = f.keys.use(func(keys []byte) error {
		copy(out[:], keys[at:])
		return nil
	})
	return out, err
}

// String returns a fixed text.
func (f *FileKeys) String() string { return redacted }

// GoString returns a fixed text.
func (f *FileKeys) GoString() string { return redacted }

// Format writes a fixed text for every verb.
func (f *FileKeys) Format(s fmt.State, _ rune) { io.WriteString(s, redacted) }

// MarshalJSON returns a fixed text.
func (f *FileKeys) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns a fixed text.
func (f *FileKeys) LogValue() slog.Value { return slog.StringValue(redacted) }
