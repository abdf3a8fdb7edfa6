// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/fips140"
	"crypto/hkdf"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/internal/vectors"
)

// hexBytes is a hex string in the JSON of Wycheproof.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func readWycheproof(t *testing.T, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(vectors.Dir(t, "wycheproof"), name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatal(err)
	}
}

// TestWycheproofAESGCM tries the one AEAD constructor that this package uses.
// It draws its own nonces, so that only opening can be compared, and it has one
// nonce length and one tag length.
func TestWycheproofAESGCM(t *testing.T) {
	var file struct {
		TestGroups []struct {
			KeySize, IVSize, TagSize int
			Tests                    []struct {
				TcID                       int
				Key, IV, AAD, Msg, Ct, Tag hexBytes
				Result                     string
			}
		}
	}
	readWycheproof(t, "aes_gcm_test.json", &file)
	tried := 0
	for _, group := range file.TestGroups {
		if group.KeySize != 256 || group.IVSize != 96 || group.TagSize != 128 {
			continue
		}
		for _, test := range group.Tests {
			tried++
			block, err := aes.NewCipher(test.Key)
			if err != nil {
				t.Fatal(err)
			}
			aead, err := cipher.NewGCMWithRandomNonce(block)
			if err != nil {
				t.Fatal(err)
			}
			got, err := aead.Open(nil, nil, bytes.Join([][]byte{test.IV, test.Ct, test.Tag}, nil), test.AAD)
			if (err == nil) != (test.Result == "valid") || err == nil && !bytes.Equal(got, test.Msg) {
				t.Errorf("case %d, %s: error %v", test.TcID, test.Result, err)
			}
		}
	}
	if tried < 60 {
		t.Errorf("%d cases tried", tried)
	}
}

// TestWycheproofHKDF tries the expansion that derives every key. The vectors
// cover extraction too, which comes first; strict FIPS mode may refuse their
// short input keys, which this package never has.
func TestWycheproofHKDF(t *testing.T) {
	var file struct {
		TestGroups []struct {
			Tests []struct {
				TcID                 int
				IKM, Salt, Info, OKM hexBytes
				Size                 int
				Result               string
			}
		}
	}
	readWycheproof(t, "hkdf_sha384_test.json", &file)
	tried, refused := 0, 0
	for _, group := range file.TestGroups {
		for _, test := range group.Tests {
			prk, err := hkdf.Extract(sha512.New384, test.IKM, test.Salt)
			if err != nil {
				if !fips140.Enforced() || len(test.IKM) >= 14 {
					t.Errorf("case %d: extract: %v", test.TcID, err)
				}
				refused++
				continue
			}
			tried++
			got, err := hkdf.Expand(sha512.New384, prk, string(test.Info), test.Size)
			if (err == nil) != (test.Result == "valid") || err == nil && !bytes.Equal(got, test.OKM) {
				t.Errorf("case %d, %s: error %v", test.TcID, test.Result, err)
			}
		}
	}
	if tried < 60 {
		t.Errorf("%d cases tried, %d refused", tried, refused)
	}
}
