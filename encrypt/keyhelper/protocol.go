// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keyhelper

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

const (
	// maxMessage bounds a request and an answer: a stanza has 8 KiB of body and
	// 16 KiB of params, is JSON with six bytes for some and base64 twice.
	maxMessage = 256 << 10
	// maxKey bounds how a configuration names a key, maxResource what stands for
	// it in the key id: the public key of a hybrid, at most.
	maxKey      = 2 << 10
	maxResource = 8 << 10
)

// The operations. The first two are those of ocicrypt.
const (
	opWrap     = "keywrap"
	opUnwrap   = "keyunwrap"
	opDescribe = "modelsec.describe"
)

// The parameters that stand beside, or in place of, the one named after the
// provider.
const (
	paramVersion = "modelsec.version"
	paramKey     = "modelsec.key"
	paramContext = "modelsec.context"
)

// request has both members always, as ocicrypt writes it.
type request struct {
	Op     string       `json:"op"`
	Wrap   wrapParams   `json:"keywrapparams"`
	Unwrap unwrapParams `json:"keyunwrapparams"`
}

type wrapParams struct {
	Config *encryptConfig `json:"ec"`
	Data   []byte         `json:"optsdata"`
}

type unwrapParams struct {
	Config     *decryptConfig `json:"dc"`
	Annotation []byte         `json:"annotation"`
}

// encryptConfig and decryptConfig are ocicrypt's, whose members have no tags.
type encryptConfig struct {
	Parameters    map[string][][]byte
	DecryptConfig decryptConfig
}

type decryptConfig struct {
	Parameters map[string][][]byte
}

type answer struct {
	Wrap     wrapResults   `json:"keywrapresults"`
	Unwrap   unwrapResults `json:"keyunwrapresults"`
	Describe *description  `json:"describeresults,omitempty"`
	Error    *failure      `json:"error,omitempty"`
}

type wrapResults struct {
	Annotation []byte `json:"annotation"`
}

type unwrapResults struct {
	Data []byte `json:"optsdata"`
}

// description is what a caller has to know to tell its stanzas from others
// without asking.
type description struct {
	Type     string `json:"type"`
	Resource []byte `json:"resource"`
	Class    string `json:"class"`
	// Seconds is how long a call may take, where that is not the default: somebody
	// may have to touch a token.
	Seconds int64 `json:"seconds,omitempty"`
}

func (d description) check() error {
	if len(d.Type) == 0 || len(d.Type) > 64 || len(d.Resource) == 0 || len(d.Resource) > maxResource {
		return fmt.Errorf("it describes a key by a type of %d and a resource of %d bytes; limits are 64 and %d", len(d.Type), len(d.Resource), maxResource)
	}
	if _, err := encrypt.ParseWrapClass(d.Class); err != nil {
		return errors.New("it describes a key of an unknown wrap class")
	}
	return nil
}

// failure is how a helper says what a key service said.
type failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// codes are the errors that cross the pipe by name.
var codes = []struct {
	name string
	err  error
}{
	{"denied", encrypt.ErrDenied},
	{"disabled", encrypt.ErrDisabled},
	{"throttled", encrypt.ErrThrottled},
	{"unavailable", encrypt.ErrUnavailable},
	{"decrypt", encrypt.ErrDecrypt},
}

// codeOf returns the name of err, "other" where it has none.
func codeOf(err error) string {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return "other"
}

// errOf returns the error with the given name, nil where there is none.
func errOf(name string) error {
	for _, c := range codes {
		if c.name == name {
			return c.err
		}
	}
	return nil
}

// stanza is what a helper built with Main has in place of an annotation.
type stanza struct {
	Type   string            `json:"type"`
	KeyID  string            `json:"keyId"`
	Params map[string]string `json:"params,omitempty"`
	Body   []byte            `json:"body"`
}

func encodeStanza(s encrypt.Stanza) []byte {
	doc, err := json.Marshal(stanza{s.Type, s.KeyID, s.Params, s.Body})
	if err != nil {
		panic("keyhelper: strings and bytes do not encode: " + err.Error())
	}
	return doc
}

func decodeStanza(doc []byte) (encrypt.Stanza, error) {
	var s stanza
	if err := strictjson.Unmarshal(doc, &s, maxMessage); err != nil {
		return encrypt.Stanza{}, errors.New("the annotation is not a stanza in JSON")
	}
	return encrypt.Stanza{Type: s.Type, KeyID: s.KeyID, Params: s.Params, Body: s.Body}, nil
}
