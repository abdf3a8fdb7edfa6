// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"

	"github.com/modelsec/modelsec-go/internal/floe"
	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/opencontainers/go-digest"
)

const (
	filesLabel = "modelsec/v1/grant-files"
	// maxLayers is the most layers of a manifest (FORMAT.md §2).
	maxLayers = 4096
)

// errFileList is wrapped by every error about what a sealed file list says.
var errFileList = errors.New("encrypt: malformed file list")

// filesJSON is the plaintext of a sealed file list (FORMAT.md §8.6).
type filesJSON struct {
	Files json.RawMessage `json:"files"`
	Keys  []layerKeyJSON  `json:"keys"`
}

type layerKeyJSON struct {
	Layer uint32 `json:"layer"`
	Key   string `json:"key"`
}

// encodeFiles writes a filesJSON in one piece of memory, which the caller wipes.
func encodeFiles(key *Key, artifactID [16]byte, files json.RawMessage, layers []uint32) ([]byte, error) {
	const entry = len(`{"layer":4294967295,"key":""},`) + (keySize+2)/3*4
	out := make([]byte, 0, len(`{"files":,"keys":[]}`)+len(files)+len(layers)*entry)
	out = append(append(append(out, `{"files":`...), files...), `,"keys":[`...)
	for i, layer := range slices.Sorted(slices.Values(layers)) {
		if i > 0 {
			out = append(out, ',')
		}
		out = fmt.Appendf(out, `{"layer":%d,"key":"`, layer)
		k, err := key.partKey(artifactID, layer)
		if err != nil {
			clear(out)
			return nil, err
		}
		out = append(base64.StdEncoding.AppendEncode(out, k[:]), `"}`...)
		clear(k[:])
	}
	return append(out, `]}`...), nil
}

// WrapFiles wraps the keys of some layers for the recipients, with the scope
// [ScopeFiles] and the expiry of b (FORMAT.md §8.6). files is the JSON of the
// list that the recipients see; layers are the ordinals of all layers that
// those files touch, in any order, each once. Sign what they go into: readers
// take a file list from signed grants only.
func WrapFiles(ctx context.Context, key *Key, b Binding, files json.RawMessage, layers []uint32, recipients ...Recipient) ([]Stanza, error) {
	if err := key.CheckCommitment(b.ArtifactID, b.Commitment); err != nil {
		return nil, err
	}
	b = b.normal(ScopeFiles)
	if _, err := b.bound(); err != nil {
		return nil, err
	}
	plaintext, err := encodeFiles(key, b.ArtifactID, files, layers)
	if err != nil {
		return nil, err
	}
	defer clear(plaintext)
	check, err := parseFiles(b.ArtifactID, plaintext)
	if err != nil {
		return nil, err
	}
	check.Close()

	grantKey := NewKey()
	defer grantKey.Close()
	var sealed []byte
	err = grantKey.dek.use(func(key []byte) error {
		inner := filesKey(key, b)
		defer clear(inner[:])
		sealed = gcm(&inner).Seal(nil, nil, plaintext, filesAAD(b))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return wrap(ctx, grantKey.dek, b, sealed, recipients)
}

// openFiles opens the sealed list of an entry.
func openFiles(grantKey []byte, s Stanza, b Binding) (PartKeys, error) {
	inner := filesKey(grantKey, b)
	defer clear(inner[:])
	plaintext, err := gcm(&inner).Open(nil, nil, s.Sealed, filesAAD(b))
	if err != nil {
		return nil, fmt.Errorf("sealed file list: %w", ErrDecrypt)
	}
	defer clear(plaintext)
	files, err := parseFiles(b.ArtifactID, plaintext)
	if err != nil {
		return nil, err
	}
	return files, nil
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
		return nil, fmt.Errorf("%w: %w", errFileList, err)
	}
	if len(doc.Files) == 0 || doc.Files[0] != '[' || len(doc.Keys) == 0 || len(doc.Keys) > maxLayers {
		return nil, fmt.Errorf("%w: files and 1 to %d keys are required, %d keys found", errFileList, maxLayers, len(doc.Keys))
	}
	// All keys share one secret, so that a grant locks one page, not thousands.
	keys := make([]byte, 0, len(doc.Keys)*keySize)
	defer func() { clear(keys) }()
	offsets := make(map[uint32]int, len(doc.Keys))
	for _, e := range doc.Keys {
		k, err := decodeBase64(e.Key)
		_, repeated := offsets[e.Layer]
		if err != nil || len(k) != keySize || e.Layer >= maxLayers || repeated {
			return nil, fmt.Errorf("%w: the key of layer %d is repeated, out of range or not %d bytes", errFileList, e.Layer, keySize)
		}
		offsets[e.Layer] = len(keys)
		keys = append(keys, k...)
		clear(k)
	}
	return &FileKeys{artifactID, slices.Clone(doc.Files), offsets, newSecret(keys)}, nil
}

// FileKeys are the keys of some layers of one artifact, from an entry of
// [ScopeFiles]. Each proves itself against the header in the signed index when
// [NewPartOpener] gets it. It is safe for concurrent use, formats as a fixed text, and wipes its keys on Close.
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
