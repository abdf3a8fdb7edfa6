// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package keyhelper_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// TestMain is also the main of the helpers that the tests start: the test binary
// itself, with a variable that says which.
func TestMain(m *testing.M) {
	switch os.Getenv("MODELSEC_TEST_HELPER") {
	case "":
		os.Exit(m.Run())
	case "built with Main":
		keyhelper.Main(openKey)
	case "of another project":
		if err := foreign(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "odd":
		odd()
	}
}

// backend is the folder through which a test and its helpers speak: requests
// has a byte for each process, state is what they do, KEY.pem are the keys.
type backend string

func (b backend) file(name string) string { return filepath.Join(string(b), name) }

func (b backend) requests() int {
	info, err := os.Stat(b.file("requests"))
	if err != nil {
		return 0
	}
	return int(info.Size())
}

func (b backend) enter(state string) func(*testing.T) {
	return func(t *testing.T) {
		t.Helper()
		if err := os.WriteFile(b.file("state"), []byte(state), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// act counts a request and does what the state says. words are what an
// indiscreet program would print.
func act(words string) error {
	b := backend(os.Getenv("BACKEND"))
	f, err := os.OpenFile(b.file("requests"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("."); err != nil {
		return err
	}
	state, err := os.ReadFile(b.file("state"))
	if err != nil {
		return err
	}
	switch string(state) {
	case "disabled":
		return fmt.Errorf("the broker said no: %w", encrypt.ErrDisabled)
	case "denied":
		return fmt.Errorf("the broker said no: %w", encrypt.ErrDenied)
	case "throttled":
		return fmt.Errorf("the broker said no: %w", encrypt.ErrThrottled)
	case "unavailable":
		return fmt.Errorf("the broker said no: %w", encrypt.ErrUnavailable)
	case "quoting":
		fmt.Fprintln(os.Stderr, words)
		return fmt.Errorf("bad request: %s", words)
	case "stalled":
		// A child too: the end of the program is not the end of its group.
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "MODELSEC_TEST_HELPER=odd", "ODD=hold")
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		return cmd.Run()
	}
	return nil
}

// openKey is the provider of the helper built with Main: HPKE with the key file
// of the given name.
func openKey(_ context.Context, name string) (*keyhelper.Key, error) {
	text, err := os.ReadFile(backend(os.Getenv("BACKEND")).file(name + ".pem"))
	if err != nil {
		return nil, err
	}
	id, err := encrypt.ParseIdentity(string(text))
	if err != nil {
		return nil, err
	}
	return &keyhelper.Key{Type: id.Recipient().Type(), Resource: id.Recipient().Bytes(), Recipient: acting{id}, Identity: acting{id}}, nil
}

// acting does what the state says before it does its work.
type acting struct{ id *encrypt.HPKEIdentity }

func (a acting) Timeout() time.Duration { return 90 * time.Second }

func (a acting) Class() encrypt.WrapClass { return a.id.Recipient().Class() }

func (a acting) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := act(fmt.Sprintf("%x %d %q", key, key, key)); err != nil {
		return encrypt.Stanza{}, err
	}
	return a.id.Recipient().Wrap(ctx, key, b)
}

func (a acting) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	out, err := a.id.Unwrap(ctx, s, b)
	if failed := act(fmt.Sprintf("%x %v %s", out, out, out)); failed != nil {
		return nil, failed
	}
	return out, err
}

// foreign is a keyprovider as others write it: it knows the protocol of ocicrypt
// and nothing of this module. Its wrapped keys have no associated data.
func foreign(in io.Reader, out io.Writer) error {
	var req struct {
		Op            string
		KeyWrapParams struct {
			Ec       struct{ Parameters map[string][][]byte }
			OptsData []byte
		}
		KeyUnwrapParams struct {
			Dc         struct{ Parameters map[string][][]byte }
			Annotation []byte
		}
	}
	doc, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(doc, &req); err != nil {
		return err
	}
	aead := func(params map[string][][]byte) cipher.AEAD {
		block, err := aes.NewCipher(fmt.Appendf(nil, "%-32s", params["vault-of-another"][0]))
		if err != nil {
			panic(err)
		}
		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			panic(err)
		}
		return aead
	}
	var result any
	switch req.Op {
	case "keywrap":
		if err := act(string(doc)); err != nil {
			return err
		}
		sealed := aead(req.KeyWrapParams.Ec.Parameters).Seal(nil, nil, req.KeyWrapParams.OptsData, nil)
		result = map[string]any{"keywrapresults": map[string]any{"annotation": sealed}}
	case "keyunwrap":
		opened, err := aead(req.KeyUnwrapParams.Dc.Parameters).Open(nil, nil, req.KeyUnwrapParams.Annotation, nil)
		if failed := act(string(doc) + hex.EncodeToString(opened)); failed != nil {
			return failed
		}
		if err != nil {
			return err
		}
		result = map[string]any{"keyunwrapresults": map[string]any{"optsdata": opened}}
	default:
		return fmt.Errorf("unknown operation %s", req.Op)
	}
	return json.NewEncoder(out).Encode(result)
}

// forever is longer than any test runs; the process is killed before.
func forever() { time.Sleep(24 * time.Hour) }

// odd is a program that does what none should.
func odd() {
	switch os.Getenv("ODD") {
	case "hold":
		// Until killed. The pipe tells the test that this process is there, and,
		// by its end, that it is gone.
		pipe, err := os.OpenFile(os.Getenv("FIFO"), os.O_WRONLY, 0)
		if err == nil {
			fmt.Fprintln(pipe, "here")
		}
		forever()
	case "chatty":
		w := bufio.NewWriter(os.Stdout)
		for {
			if _, err := w.Write(bytes.Repeat([]byte("x"), 1<<10)); err != nil {
				return
			}
		}
	case "leaves a child":
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "ODD=hold")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Println("{}")
	case "environment":
		// Without PATH, which may be longer than what is quoted of a reason.
		env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "PATH=") })
		json.NewEncoder(os.Stdout).Encode(map[string]any{"error": map[string]string{"code": "other", "message": strings.Join(env, " ")}})
	case "killed":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		forever()
	default:
		fmt.Fprint(os.Stderr, os.Getenv("STDERR"))
		fmt.Print(os.Getenv("ODD"))
		if os.Getenv("STDERR") != "" {
			os.Exit(3)
		}
	}
}
