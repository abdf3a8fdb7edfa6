// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// maxMarks is how many of the characters { [ and , a header within the other
// bounds can have outside strings: for each layer two members and a FLOE
// header, for each file four members and its list, for each run its numbers.
const maxMarks = 4*maxLayers + 6*maxFiles + 5*maxRuns + 16

// decode reads a header or sealed section. Beyond strictjson it refuses a
// document with more elements than the bounds admit before it allocates any,
// since 16 MiB have room for millions, and one that leaves out a size, which
// decodes as if it were zero.
func decode(b []byte, v any) error {
	if n := marks(b); n > maxMarks {
		return fmt.Errorf("%d elements, limit %d", n, maxMarks)
	}
	if err := strictjson.Unmarshal(b, v, maxHeader); err != nil {
		return err
	}
	type sized struct {
		Size *uint64 `json:"size"`
	}
	var sizes struct{ Layers, Files []sized }
	if err := json.Unmarshal(b, &sizes); err != nil {
		return err
	}
	for _, list := range [][]sized{sizes.Layers, sizes.Files} {
		for _, s := range list {
			if s.Size == nil {
				return errors.New("a layer or file without size")
			}
		}
	}
	return nil
}

// marks counts the characters that start or part elements. In a document that
// is not JSON the count means nothing, and nothing comes of it.
func marks(b []byte) (n int) {
	quoted := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '{' || c == '[' || c == ','):
			n++
		}
	}
	return n
}

// Bytes are encoded as base64, which has one form: padded, without line ends,
// unused bits zero. encoding/json takes others too.
type Bytes []byte

// UnmarshalJSON refuses the other forms.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	var s string
	if err := json.Unmarshal(data, &s); err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(s)
	if err == nil && base64.StdEncoding.EncodeToString(raw) != s {
		err = errors.New("base64 with line ends or unused bits")
	}
	*b = raw
	return err
}
