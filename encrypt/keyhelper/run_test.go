// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package keyhelper_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// TestCancelKillsTheWholeGroup: neither the program nor what it started lives on.
func TestCancelKillsTheWholeGroup(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, state := range []string{"stalled", "leaves a child"} {
		t.Run(state, func(t *testing.T) {
			back, c := newBackend(t, "built with Main", "FIFO="+fifo)
			h := open(t, c, "ours")
			if state == "leaves a child" {
				_, c = newBackend(t, "odd", "FIFO="+fifo, "ODD="+state)
				var err error
				if h, err = keyhelper.OCICrypt(c, "p", ""); err != nil {
					t.Fatal(err)
				}
			}
			back.enter(state)(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			_, b := encrypttest.NewBinding(t)
			done := make(chan error, 1)
			go func() {
				_, err := h.Wrap(ctx, make([]byte, 128), b)
				done <- err
			}()
			pipe, err := os.Open(fifo) // waits for the child of the helper
			if err != nil {
				t.Fatal(err)
			}
			defer pipe.Close()
			r := bufio.NewReader(pipe)
			if line, err := r.ReadString('\n'); err != nil || line != "here\n" {
				t.Fatalf("the child says %q, error %v", line, err)
			}
			if state == "stalled" {
				cancel()
			}
			if err := <-done; err == nil || state == "stalled" && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			if _, err := r.ReadByte(); err != io.EOF { // when it is dead
				t.Errorf("the child goes on: %v", err)
			}
		})
	}
}

// TestAnswersAreBounded: a program that writes without end is an error and dead.
func TestAnswersAreBounded(t *testing.T) {
	_, c := newBackend(t, "odd", "ODD=chatty")
	_, err := keyhelper.Open(t.Context(), c, "")
	if err == nil || !strings.Contains(err.Error(), "more than 262144 bytes") {
		t.Errorf("error %v", err)
	}
}

func TestTimeoutIsUnavailable(t *testing.T) {
	back, c := newBackend(t, "built with Main")
	h := open(t, c, "ours")
	c.Timeout = 100 * time.Millisecond
	slow, err := keyhelper.OCICrypt(c, "p", "")
	if err != nil {
		t.Fatal(err)
	}
	if slow.Timeout() != c.Timeout || h.Timeout() != 2*time.Minute {
		t.Errorf("timeouts %v and %v", slow.Timeout(), h.Timeout())
	}
	c.Timeout = 0
	if h := open(t, c, "ours"); h.Timeout() != 90*time.Second {
		t.Errorf("timeout %v, want that of the provider in the helper", h.Timeout())
	}
	c.Timeout = 100 * time.Millisecond
	back.enter("stalled")(t)
	_, b := encrypttest.NewBinding(t)
	// A program of another kind stands in for one that opens slowly.
	c.Env[0] = "MODELSEC_TEST_HELPER=odd"
	c.Env = append(c.Env, "ODD=hold", "FIFO=/does/not/exist")
	if slow, err = keyhelper.OCICrypt(c, "p", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := slow.Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrUnavailable) {
		t.Errorf("error %v, want ErrUnavailable", err)
	}
	c.Timeout = time.Hour
	if long, err := keyhelper.OCICrypt(c, "p", ""); err != nil || long.Timeout() != 2*time.Minute {
		t.Errorf("timeout %v, error %v", long.Timeout(), err)
	}
}

// TestEnvironmentIsMinimal: credentials of the caller's process reach only the
// programs that are meant to have them.
func TestEnvironmentIsMinimal(t *testing.T) {
	t.Setenv("MODELSEC_SECRET", "s3cr3t")
	t.Setenv("CLOUD_REGION", "here")
	t.Setenv("CLOUD_PROFILE", "mine")
	_, c := newBackend(t, "odd", "ODD=environment", "CLOUD_*", "UNSET")
	_, err := keyhelper.Open(t.Context(), c, "")
	if err == nil {
		t.Fatal("no error")
	}
	for text, want := range map[string]bool{"CLOUD_REGION=here": true, "CLOUD_PROFILE=mine": true, "MODELSEC_SECRET": false, "s3cr3t": false, "UNSET": false} {
		if strings.Contains(err.Error(), text) != want {
			t.Errorf("the environment has %s: %v, want %v\n%v", text, !want, want, err)
		}
	}
}

// TestProgramsAreFoundByAbsolutePath: where a helper comes from does not depend
// on the current directory.
func TestProgramsAreFoundByAbsolutePath(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "modelsec-helper-x"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for _, path := range []string{"", "./modelsec-helper-x", "a/b", "modelsec-helper-x"} {
		t.Setenv("PATH", ".")
		if _, err := keyhelper.OCICrypt(keyhelper.Config{Path: path}, "p", ""); err == nil {
			t.Errorf("program %q was taken", path)
		}
	}
	t.Setenv("PATH", dir)
	if got, err := keyhelper.Lookup("x"); err != nil || got != filepath.Join(dir, "modelsec-helper-x") {
		t.Errorf("found %q, error %v", got, err)
	}
	for _, name := range []string{"", "y", "X", "../x", "x/", "-x", "x-", strings.Repeat("x", 33)} {
		if _, err := keyhelper.Lookup(name); err == nil {
			t.Errorf("name %q was taken", name)
		}
	}
}

// TestStderrIsQuotedWithoutKeys shows what of a program's words reaches an error.
func TestStderrIsQuotedWithoutKeys(t *testing.T) {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(33 + i*2)
	}
	for said, want := range map[string]string{
		"vault: permission denied for transit/decrypt/team-key\n": "vault: permission denied for transit/decrypt/team-key",
		"line one\nline\ttwo ":                                      "line one line two",
		"key " + base64.StdEncoding.EncodeToString(key) + "!":       "key ...!",
		"key " + hex.EncodeToString(key) + " refused":               "key...refused",
		"key " + strings.ToUpper(hex.EncodeToString(key)) + "!":     "key...!",
		"open /usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so: no": "open /usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so: no",
		fmt.Sprint("key ", key, " refused"):                         "key...refused",
		fmt.Sprintf("key % x", key):                                 "key...",
		"raw \x01\x02":                                              "its 6 bytes of reason are not printable",
		"\u202eevil":                                                "its 7 bytes of reason are not printable",
		strings.Repeat("no ", 1000):                                 strings.TrimSpace(strings.Repeat("no ", 171))[:512],
	} {
		_, c := newBackend(t, "odd", "ODD=", "STDERR="+said)
		_, err := keyhelper.Open(t.Context(), c, "")
		if err == nil {
			t.Errorf("%q: no error", said)
			continue
		}
		if _, got, _ := strings.Cut(err.Error(), "exit status 3: "); got != want {
			t.Errorf("%q is quoted as\n%q, want\n%q", said, got, want)
		}
	}
}
