// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package age_test

import (
	"crypto/aes"
	"crypto/cipher"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"
)

// TestMain is also a plugin of age, where the test binary runs under the name of
// one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) != "age-plugin-modelsectest" {
		os.Exit(m.Run())
	}
	p, err := plugin.New("modelsectest")
	if err != nil {
		panic(err)
	}
	flags := flag.NewFlagSet("plugin", flag.ContinueOnError)
	p.RegisterFlags(flags)
	p.HandleRecipient(func(data []byte) (age.Recipient, error) { return token(data), nil })
	p.HandleIdentity(func(data []byte) (age.Identity, error) { return token(data), nil })
	if err := flags.Parse(os.Args[1:]); err != nil {
		os.Exit(2)
	}
	os.Exit(p.Main())
}

// token stands for a device with one key. What it does apart from its work is
// in the folder that BACKEND names.
type token []byte

func act(fileKey []byte) error {
	dir := os.Getenv("BACKEND")
	f, err := os.OpenFile(filepath.Join(dir, "requests"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("."); err != nil {
		return err
	}
	for {
		state, err := os.ReadFile(filepath.Join(dir, "state"))
		switch {
		case err != nil, string(state) == "unlabelled":
			return nil
		case string(state) == "quoting":
			fmt.Fprintf(os.Stderr, "%x", fileKey)
			return fmt.Errorf("bad request %x %d", fileKey, fileKey)
		}
		time.Sleep(10 * time.Millisecond) // stalled
	}
}

func (k token) aead() cipher.AEAD {
	block, err := aes.NewCipher(k)
	if err != nil {
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return aead
}

func (k token) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	s, _, err := k.WrapWithLabels(fileKey)
	return s, err
}

func (k token) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	if err := act(fileKey); err != nil {
		return nil, nil, err
	}
	stanzaType, labels := "modelsectest", []string(nil)
	switch k[0] {
	case 'p':
		if _, err := os.Stat(filepath.Join(os.Getenv("BACKEND"), "state")); err != nil {
			labels = []string{"postquantum"}
		}
	case 's':
		stanzaType = "scrypt"
	}
	return []*age.Stanza{{Type: stanzaType, Body: k.aead().Seal(nil, nil, fileKey, nil)}}, labels, nil
}

func (k token) Unwrap(stanzas []*age.Stanza) ([]byte, error) {
	for _, s := range stanzas {
		if s.Type != "modelsectest" {
			continue
		}
		fileKey, err := k.aead().Open(nil, nil, s.Body, nil)
		if failed := act(fileKey); failed != nil {
			return nil, failed
		}
		if err == nil {
			return fileKey, nil
		}
	}
	return nil, age.ErrIncorrectIdentity
}

// installPlugin puts the plugin into PATH and returns its folder.
func installPlugin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, "age-plugin-modelsectest")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
	t.Setenv("BACKEND", dir)
	t.Setenv("GORACE", "atexit_sleep_ms=0") // a process under the race detector waits for a second at its end
	return dir
}

// tokenKey returns the recipient and the file of identities of a token, whose
// first byte says what kind it is.
func tokenKey(kind string) (recipient, file string) {
	key := []byte(kind + strings.Repeat("k", 32-len(kind)))
	recipient = plugin.EncodeRecipient("modelsectest", key)
	return recipient, "# created by a test\n#    Recipient: " + recipient + "\n" + plugin.EncodeIdentity("modelsectest", key) + "\n"
}

// program returns the path of a program of age that .ci/run installs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("CI needs the program %s", name)
		}
		t.Skipf("not tried: the program %s is missing", name)
	}
	return path
}
