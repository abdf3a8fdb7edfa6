// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package registry_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// TestCredentialHelpersComeBeforeStoredCredentials: the helper of the host, the
// helper for all hosts, what stands in the file, and only then the next file.
func TestCredentialHelpersComeBeforeStoredCredentials(t *testing.T) {
	server := ociserver.New()
	var got string
	host := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); ok && password == secret {
			got = user
			server.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", "Basic")
		w.WriteHeader(http.StatusUnauthorized)
	}))
	home, bin := t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("DOCKER_CONFIG", home)
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "auth.json"))
	t.Setenv("XDG_RUNTIME_DIR", home)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	// The protocol of Docker: the host on standard input, JSON on standard output.
	for name, script := range map[string]string{
		"own":     `read host; [ "$host" = HOST ] && echo '{"ServerURL":"HOST","Username":"own","Secret":"SECRET"}'`,
		"all":     `read host; [ "$host" = HOST ] && echo '{"ServerURL":"HOST","Username":"all","Secret":"SECRET"}'`,
		"nothing": `echo 'credentials not found in native keychain'; exit 1`,
		"broken":  `echo 'the keychain is locked'; exit 1`,
	} {
		script = "#!/bin/sh\n" + strings.NewReplacer("SECRET", secret, "HOST", host).Replace(script) + "\n"
		if err := os.WriteFile(filepath.Join(bin, "docker-credential-"+name), []byte(script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	stored := func(user string) string {
		return fmt.Sprintf(`"auths":{%q:{"auth":%q}}`, host, base64.StdEncoding.EncodeToString([]byte(user+":"+secret)))
	}
	if err := os.WriteFile(filepath.Join(home, "auth.json"), []byte("{"+stored("next file")+"}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ file, user string }{
		{`{"credHelpers":{"HOST":"own"},"credsStore":"all",` + stored("stored") + `}`, "own"},
		{`{"credHelpers":{"elsewhere.example.com":"own"},"credsStore":"all",` + stored("stored") + `}`, "all"},
		{`{"credHelpers":{"elsewhere.example.com":"own"},` + stored("stored") + `}`, "stored"},
		{`{"credHelpers":{"HOST":"nothing"}}`, "next file"},
		{`{}`, "next file"},
		// A helper that fails is no reason to try who else might do.
		{`{"credHelpers":{"HOST":"broken"},` + stored("stored") + `}`, ""},
		{`{"credHelpers":{"HOST":"absent"},` + stored("stored") + `}`, ""},
	} {
		if err := os.WriteFile(filepath.Join(home, "config.json"), []byte(strings.ReplaceAll(c.file, "HOST", host)), 0o600); err != nil {
			t.Fatal(err)
		}
		got = ""
		_, err := open(t, new(registry.Client), host+"/team/model").Resolve(t.Context(), "v1")
		if got != c.user || errors.Is(err, registry.ErrNotFound) != (c.user != "") {
			t.Errorf("%s: got user %q and error %v, want user %q", c.file, got, err, c.user)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}
