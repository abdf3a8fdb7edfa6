// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/containers/ocicrypt/keywrap/keyprovider"

	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// TestMain is also a keyprovider, where a test starts the test binary as one, and
// Vault, where the tests of the matrix do.
func TestMain(m *testing.M) {
	serve := provide
	switch {
	case os.Getenv("MODELSEC_TEST_VAULT") != "":
		serve = serveVault
	case os.Getenv("MODELSEC_TEST_KEYPROVIDER") == "":
		os.Exit(m.Run())
	}
	if err := serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// provide reads and writes the documents with ocicrypt's own types, and refuses
// members that those do not have.
func provide(in io.Reader, out io.Writer) error {
	requests, err := os.OpenFile(os.Getenv("REQUESTS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer requests.Close()
	if _, err := requests.WriteString("."); err != nil {
		return err
	}
	if _, err := os.Stat(os.Getenv("REQUESTS") + ".stall"); err == nil {
		time.Sleep(24 * time.Hour) // killed before
	}
	doc, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if _, err := os.Stat(os.Getenv("REQUESTS") + ".quote"); err == nil {
		return fmt.Errorf("bad request %s", doc)
	}
	var req keyprovider.KeyProviderKeyWrapProtocolInput
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		return err
	}
	var result keyprovider.KeyProviderKeyWrapProtocolOutput
	switch req.Operation {
	case keyprovider.OpKeyWrap:
		aead, err := broker(req.KeyWrapParams.Ec.Parameters)
		if err != nil {
			return err
		}
		result.KeyWrapResults.Annotation = aead.Seal(nil, nil, req.KeyWrapParams.OptsData, nil)
	case keyprovider.OpKeyUnwrap:
		aead, err := broker(req.KeyUnwrapParams.Dc.Parameters)
		if err != nil {
			return err
		}
		if result.KeyUnwrapResults.OptsData, err = aead.Open(nil, nil, req.KeyUnwrapParams.Annotation, nil); err != nil {
			return err
		}
	default:
		return fmt.Errorf("operation %q", req.Operation)
	}
	return json.NewEncoder(out).Encode(result)
}

func broker(params map[string][][]byte) (cipher.AEAD, error) {
	if len(params["broker"]) != 1 {
		return nil, fmt.Errorf("%d parameters for this provider", len(params["broker"]))
	}
	block, err := aes.NewCipher(fmt.Appendf(nil, "%-32s", params["broker"][0]))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// TestOCICryptContract is the suite against a program that was written to
// ocicrypt's types and knows nothing of modelsec.
func TestOCICryptContract(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		requests := filepath.Join(t.TempDir(), "requests")
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := keyhelper.Config{Path: self, Env: []string{"MODELSEC_TEST_KEYPROVIDER=1", "REQUESTS=" + requests, "GORACE=atexit_sleep_ms=0"}, Timeout: 2 * time.Minute}
		open := func(key string) *keyhelper.Helper {
			h, err := keyhelper.OCICrypt(c, "broker", key)
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		enter := func(state string) func(*testing.T) {
			return func(t *testing.T) {
				if err := os.WriteFile(requests+state, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		ours := open("ours")
		const reason = "a keyprovider of ocicrypt can only fail"
		return encrypttest.Pair{
			Recipient: ours, Identity: ours, Stranger: open("theirs"),
			Requests: func() int {
				info, err := os.Stat(requests)
				if err != nil {
					return 0
				}
				return int(info.Size())
			},
			Service: encrypttest.Service{
				Stall: enter(".stall"),
				Quote: enter(".quote"),
				Heal: func(*testing.T) {
					os.Remove(requests + ".stall")
					os.Remove(requests + ".quote")
				},
				Without: map[string]string{"Disable": reason, "Deny": reason, "Throttle": reason, "Fail": reason},
			},
		}
	})
}
