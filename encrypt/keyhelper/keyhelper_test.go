// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package keyhelper_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

// newBackend returns a backend with the keys "ours" and "theirs" and the
// configuration of a helper that uses it.
func newBackend(t *testing.T, kind string, env ...string) (backend, keyhelper.Config) {
	t.Helper()
	b := backend(t.TempDir())
	b.enter("")(t)
	for _, name := range []string{"ours", "theirs"} {
		id, err := encrypt.GenerateIdentity("")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(b.file(name+".pem"), []byte(id.PEM()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return b, keyhelper.Config{
		Path: self, Timeout: 2 * time.Minute,
		// A process under the race detector waits for a second at its end.
		Env: append([]string{"MODELSEC_TEST_HELPER=" + kind, "BACKEND=" + string(b), "TOKEN=hunter2 and more", "GORACE=atexit_sleep_ms=0"}, env...),
	}
}

func open(t *testing.T, c keyhelper.Config, key string) *keyhelper.Helper {
	t.Helper()
	h, err := keyhelper.Open(t.Context(), c, key)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func pair(b backend, ours, theirs *keyhelper.Helper) encrypttest.Pair {
	return encrypttest.Pair{
		Recipient: ours, Identity: ours, Stranger: theirs,
		Secrets:  [][]byte{[]byte("hunter2 and more")},
		Requests: b.requests,
		Service: encrypttest.Service{
			Disable:  b.enter("disabled"),
			Deny:     b.enter("denied"),
			Throttle: b.enter("throttled"),
			Fail:     b.enter("unavailable"),
			Quote:    b.enter("quoting"),
			Stall:    b.enter("stalled"),
			Heal:     b.enter(""),
		},
	}
}

func TestContract(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		b, c := newBackend(t, "built with Main")
		p := pair(b, open(t, c, "ours"), open(t, c, "theirs"))
		p.Binds = true // as HPKE inside does
		return p
	})
}

func TestOCICryptContract(t *testing.T) {
	encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
		b, c := newBackend(t, "of another project")
		helpers := make([]*keyhelper.Helper, 2)
		for i, key := range []string{"ours", "theirs"} {
			var err error
			if helpers[i], err = keyhelper.OCICrypt(c, "vault-of-another", key); err != nil {
				t.Fatal(err)
			}
		}
		p := pair(b, helpers[0], helpers[1])
		const reason = "a keyprovider of ocicrypt can only fail"
		p.Service.Disable, p.Service.Deny, p.Service.Throttle, p.Service.Fail = nil, nil, nil, nil
		p.Service.Without = map[string]string{"Disable": reason, "Deny": reason, "Throttle": reason, "Fail": reason}
		return p
	})
}

// TestStanzasAreThoseOfTheProvider: a grant that was made through a helper opens
// where the provider is linked, and the other way round.
func TestStanzasAreThoseOfTheProvider(t *testing.T) {
	back, c := newBackend(t, "built with Main")
	h := open(t, c, "ours")
	text, err := os.ReadFile(back.file("ours.pem"))
	if err != nil {
		t.Fatal(err)
	}
	linked, err := encrypt.ParseIdentity(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := encrypt.ClassOf(h); got != encrypt.PostQuantum || h.Type() != encrypt.DefaultType {
		t.Errorf("class %v, type %s", got, h.Type())
	}
	key, b := encrypttest.NewBinding(t)
	for name, end := range map[string]struct {
		r  encrypt.Recipient
		id encrypt.Identity
	}{"helper to provider": {h, linked}, "provider to helper": {linked.Recipient(), h}} {
		stanzas, err := encrypt.WrapKey(t.Context(), key, b, end.r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := encrypt.UnwrapKey(t.Context(), stanzas, b, encrypttest.Now, end.id)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got.Close()
	}
}

// TestRequestIsThatOfOCICrypt pins the document that crosses the pipe
// (docs/KEYS.md, Key helpers): other people's programs read it.
func TestRequestIsThatOfOCICrypt(t *testing.T) {
	dir := t.TempDir()
	script := filepath.Join(dir, "keep")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ncat >\"$KEEP\"\necho '{\"keywrapresults\":{\"annotation\":\"AAEC\"}}'\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	h, err := keyhelper.OCICrypt(keyhelper.Config{Path: script, Env: []string{"KEEP=" + filepath.Join(dir, "request")}}, "broker", "tenant/key")
	if err != nil {
		t.Fatal(err)
	}
	_, b := encrypttest.NewBinding(t)
	s, err := h.Wrap(t.Context(), []byte("the key"), b)
	if err != nil {
		t.Fatal(err)
	}
	if s.Type != "ocicrypt" || s.KeyID != b.KeyID("ocicrypt", []byte("broker\x00tenant/key")) || !bytes.Equal(s.Body, []byte{0, 1, 2}) {
		t.Errorf("stanza %+v", s)
	}
	got, err := os.ReadFile(filepath.Join(dir, "request"))
	if err != nil {
		t.Fatal(err)
	}
	b64 := base64.StdEncoding.EncodeToString
	want := fmt.Sprintf(`{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"broker":["%s"],"modelsec.context":["%s"],"modelsec.version":["MQ=="]},"DecryptConfig":{"Parameters":null}},"optsdata":"%s"},"keyunwrapparams":{"dc":null,"annotation":null}}`,
		b64([]byte("tenant/key")), b64(b.Context()), b64([]byte("the key")))
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestHelpersThatMisbehave: whatever a program answers is an error that names
// it, and never one that asks for the next stanza at no cost.
func TestHelpersThatMisbehave(t *testing.T) {
	stanza := func(doc string) string {
		return `{"keywrapresults":{"annotation":"` + base64.StdEncoding.EncodeToString([]byte(doc)) + `"},"keyunwrapresults":{"optsdata":""}}`
	}
	for name, test := range map[string]struct{ out, stderr string }{
		"nothing":             {"{}", ""},
		"no JSON":             {"OK", ""},
		"member twice":        {`{"error":{"code":"other","message":""},"error":{"code":"other","message":""}}`, ""},
		"two documents":       {"{}{}", ""},
		"error without code":  {`{"error":{}}`, ""},
		"not mine":            {`{"error":{"code":"not-mine","message":"encrypt: not wrapped for this identity"}}`, ""},
		"no stanza":           {stanza("[]"), ""},
		"another type":        {stanza(`{"type":"x","keyId":"00","body":"AA=="}`), ""},
		"member of no stanza": {stanza(`{"type":"x","keyId":"00","body":"AA==","scope":"artifact"}`), ""},
		"status 3":            {"", "it did not work"},
	} {
		t.Run(name, func(t *testing.T) {
			b, c := newBackend(t, "built with Main")
			// The same helper turns odd.
			script := b.file("odd")
			text := "#!/bin/sh\ncat >/dev/null\nprintf %s \"$OUT\"\n[ -z \"$ERR\" ] || { echo \"$ERR\" >&2; exit 3; }\n"
			if err := os.WriteFile(script, []byte("#!/bin/sh\nexec "+c.Path+"\n"), 0o700); err != nil {
				t.Fatal(err)
			}
			c.Path, c.Env = script, append(c.Env, "OUT="+test.out, "ERR="+test.stderr)
			h := open(t, c, "ours")
			if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
				t.Fatal(err)
			}
			_, bind := encrypttest.NewBinding(t)
			_, err := h.Wrap(t.Context(), make([]byte, 128), bind)
			_, err2 := h.Unwrap(t.Context(), encrypt.Stanza{Type: h.Type(), KeyID: h.KeyID(bind), Body: []byte{1}}, bind)
			for _, err := range []error{err, err2} {
				if err == nil || errors.Is(err, encrypt.ErrNotMine) || !strings.Contains(err.Error(), "keyhelper: odd: ") {
					t.Errorf("error %v", err)
				}
				if test.stderr != "" && !strings.Contains(err.Error(), "exit status 3: it did not work") {
					t.Errorf("error %v does not say what the program said", err)
				}
			}
		})
	}
}

// TestOpenWantsADescription: a keyprovider that knows nothing of modelsec, and
// one that describes nonsense, are refused when they are configured.
func TestOpenWantsADescription(t *testing.T) {
	describe := func(typ, resource, class string) string {
		return fmt.Sprintf(`{"describeresults":{"type":%q,"resource":%q,"class":%q}}`, typ, resource, class)
	}
	for name, out := range map[string]string{
		"nothing":        "{}",
		"no type":        describe("", "AAAA", "classical"),
		"long type":      describe(strings.Repeat("x", 65), "AAAA", "classical"),
		"no resource":    describe("x", "", "classical"),
		"long resource":  describe("x", base64.StdEncoding.EncodeToString(make([]byte, 9<<10)), "classical"),
		"unknown class":  describe("x", "AAAA", "perfect"),
		"no base64":      describe("x", "A", "classical"),
		"time in words":  strings.Replace(describe("x", "AAAA", "classical"), `"}}`, `","seconds":"x"}}`, 1),
		"another result": `{"keywrapresults":{"annotation":"AAAA"}}`,
	} {
		_, c := newBackend(t, "odd", "ODD="+out)
		if h, err := keyhelper.Open(t.Context(), c, ""); err == nil {
			t.Errorf("%s: opened as %s", name, h.Type())
		}
	}
	_, c := newBackend(t, "of another project")
	if _, err := keyhelper.Open(t.Context(), c, "ours"); err == nil || !strings.Contains(err.Error(), "unknown operation") {
		t.Errorf("error %v", err)
	}
	_, c = newBackend(t, "odd", "ODD=killed")
	if _, err := keyhelper.Open(t.Context(), c, ""); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("error %v", err)
	}
	b, c := newBackend(t, "built with Main")
	if _, err := keyhelper.Open(t.Context(), c, "nobody's"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("error %v does not say what the helper said", err)
	}
	if n := b.requests(); n != 0 {
		t.Errorf("a description made %d requests to the broker", n)
	}
	for _, provider := range []string{"", "a b", "modelsec.key", strings.Repeat("x", 65)} {
		if _, err := keyhelper.OCICrypt(c, provider, ""); err == nil {
			t.Errorf("provider %q was taken", provider)
		}
	}
}
