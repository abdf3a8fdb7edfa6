// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
)

// reader is docs/format_check.py, the reader that was written from FORMAT.md
// alone, or its tests.
type reader struct {
	python, docs string
	env          []string
}

func newReader(t *testing.T) *reader {
	t.Helper()
	docs, err := filepath.Abs(filepath.Join("..", "..", "docs"))
	if err != nil {
		t.Fatal(err)
	}
	r := &reader{python: program(t, "python3"), docs: docs, env: append(cleanEnv(t), "PYTHONDONTWRITEBYTECODE=1")}
	if _, err := r.run("-c", "from cryptography.hazmat.primitives.asymmetric import mlkem"); err != nil {
		missing(t, "the Python package cryptography, 48 or later")
	}
	return r
}

func (r *reader) run(args ...string) (string, error) {
	cmd := exec.Command(r.python, args...)
	cmd.Dir, cmd.Env = r.docs, r.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPythonReaderPassesItsTestsAndVectors(t *testing.T) {
	r := newReader(t)
	for _, args := range [][]string{{"format_check_test.py"}, {"format_check.py", "--vectors", "../encrypt/testdata/vectors"}} {
		if out, err := r.run(args...); err != nil {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
	}
}

func TestPythonReaderOpensWhatGoWrote(t *testing.T) {
	r, p, keys := newReader(t), newParty(t), t.TempDir()
	// Its tests also flip bits of everything, which takes time by the byte.
	tiny := writeModel(t, map[string][]byte{"model.safetensors": noise(70_000), "config.json": []byte("{}")})
	der, err := x509.MarshalPKIXPublicKey(p.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	pub, identity := filepath.Join(keys, "signing.pub"), filepath.Join(keys, "identity.key")
	for path, text := range map[string]string{
		pub:      string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})),
		identity: p.identity.PEM(),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for profile, to := range map[string][]encrypt.Recipient{"plain": nil, "encrypted": {p.identity.Recipient()}} {
		t.Run(profile, func(t *testing.T) {
			layout, out, dir := filepath.Join(t.TempDir(), "layout"), filepath.Join(t.TempDir(), "out"), smallModel(t)
			options := p.options(t, to...)
			options.Name = "team/model"
			for tag, dir := range map[string]string{"v1": dir, "tiny": tiny} {
				if _, err := p.client().Push(t.Context(), "oci:"+layout+":"+tag, os.DirFS(dir), options); err != nil {
					t.Fatal(err)
				}
			}
			if text, err := r.run("format_check.py", layout, "v1", "--key", pub, "--name", "team/model", "--identity", identity, "--out", out); err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			sameTree(t, out, dir)
			if text, err := r.run("format_check_test.py", layout, "tiny", identity); err != nil {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}
