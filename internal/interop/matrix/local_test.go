// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package matrix_test

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"filippo.io/age"

	"github.com/modelsec/modelsec-go/encrypt"
)

// keyFile is a pair of key files, which needs no helper.
func keyFile(t *testing.T) provider {
	dir := t.TempDir()
	file := func(name string) string {
		id, err := encrypt.GenerateIdentity("")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, name)
		writeFile(t, path+".key", id.PEM())
		writeFile(t, path+".pub", id.Recipient().PEM())
		return path
	}
	ours, theirs := file("ours"), file("theirs")
	return provider{recipient: ours + ".pub", identity: ours + ".key", stranger: theirs + ".key"}
}

// ageHybrid is a pair of age's post-quantum keys.
func ageHybrid(t *testing.T) provider {
	dir := t.TempDir()
	file := func(name string) (path, recipient string) {
		id, err := age.GenerateHybridIdentity()
		if err != nil {
			t.Fatal(err)
		}
		path = filepath.Join(dir, name)
		writeFile(t, path, id.String()+"\n")
		return path, id.Recipient().String()
	}
	ours, recipient := file("ours")
	theirs, _ := file("theirs")
	return provider{recipient: recipient, identity: "age:" + ours, stranger: "age:" + theirs}
}

// keyprovider is a program that knows ocicrypt's protocol and nothing of ours.
func keyprovider(t *testing.T) provider {
	var secret [32]byte
	rand.Read(secret[:])
	return provider{
		recipient: "ocicrypt:broker:ours", identity: "ocicrypt:broker:ours", stranger: "ocicrypt:broker:theirs",
		env: []string{"BROKER_SECRET=" + hex.EncodeToString(secret[:])}, classical: true,
	}
}

// serveKeyprovider is the main of that program. The parameter goes into what is
// authenticated, so that it is as good as a key.
func serveKeyprovider(in io.Reader, out io.Writer) error {
	var q struct {
		Op            string
		KeyWrapParams struct {
			EC       struct{ Parameters map[string][][]byte }
			OptsData []byte
		}
		KeyUnwrapParams struct {
			DC         struct{ Parameters map[string][][]byte }
			Annotation []byte
		}
	}
	if err := json.NewDecoder(in).Decode(&q); err != nil {
		return err
	}
	secret, err := hex.DecodeString(os.Getenv("BROKER_SECRET"))
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	var annotation, data []byte
	switch q.Op {
	case "keywrap":
		annotation = aead.Seal(nil, nil, q.KeyWrapParams.OptsData, q.KeyWrapParams.EC.Parameters["broker"][0])
	case "keyunwrap":
		if data, err = aead.Open(nil, nil, q.KeyUnwrapParams.Annotation, q.KeyUnwrapParams.DC.Parameters["broker"][0]); err != nil {
			return err
		}
	default:
		return errors.New("operation " + q.Op)
	}
	return json.NewEncoder(out).Encode(map[string]any{
		"keywrapresults":   map[string][]byte{"annotation": annotation},
		"keyunwrapresults": map[string][]byte{"optsdata": data},
	})
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
