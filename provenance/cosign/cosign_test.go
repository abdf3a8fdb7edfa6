// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cosign_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/types"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/cosign"
)

func token(claims string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(claims)) + "." + enc([]byte("signature"))
}

// quiet takes away what the GitHub provider of the machine running the tests
// would look at.
func quiet(t *testing.T) {
	t.Helper()
	for _, name := range []string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "GCE_METADATA_HOST", "K_SERVICE", "CLOUD_RUN_JOB"} {
		t.Setenv(name, "")
	}
}

func TestConstantsEqualCosigns(t *testing.T) {
	if got, want := provenance.PayloadType, types.IntotoPayloadType; got != want {
		t.Errorf("payload type %q, cosign has %q", got, want)
	}
	if got, want := provenance.PredicateCosignSign, types.CosignSignPredicateType; got != want {
		t.Errorf("predicate type %q, cosign has %q", got, want)
	}
}

func TestAmbientTokenIsForTheAudienceAsked(t *testing.T) {
	quiet(t)
	for claims, want := range map[string]string{
		`{"aud":"sigstore"}`:              "",
		`{"aud":["other","sigstore"]}`:    "",
		`{"aud":"other"}`:                 "audience",
		`{"aud":[]}`:                      "audience",
		`{}`:                              "audience",
		`{"aud":{"sigstore":"sigstore"}}`: "not a JWT",
	} {
		secret := token(claims)
		t.Setenv("SIGSTORE_ID_TOKEN", secret+"\n")
		got, err := cosign.AmbientToken(t.Context(), "sigstore")
		if want == "" {
			if err != nil || got != secret {
				t.Errorf("%s: got %q, %v", claims, got, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), want) || got != "" {
			t.Errorf("%s: got %q, %v, want an error with %q", claims, got, err, want)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the token", claims)
		}
	}
	t.Setenv("SIGSTORE_ID_TOKEN", "hunter2")
	if _, err := cosign.AmbientToken(t.Context(), "sigstore"); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v, want an error that does not show the token", err)
	}
}

func TestAmbientTokenFromGitHub(t *testing.T) {
	secret := token(`{"aud":"sigstore"}`)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.URL.Query().Get("audience"); got != "sigstore" {
			t.Errorf("asked for audience %q", got)
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"value": secret})
	}))
	defer srv.Close()
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "request")
	t.Setenv("ACTIONS_ID_TOKEN_REQUEST_URL", srv.URL+"?v=1")
	if got, err := cosign.AmbientToken(t.Context(), "sigstore"); err != nil || got != secret {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestAmbientTokenFromGoogle(t *testing.T) {
	quiet(t)
	secret := token(`{"aud":"sigstore"}`)
	flavor := "Google"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if q := r.URL.Query(); q.Get("audience") != "sigstore" || q.Get("format") != "full" || r.Header.Get("Metadata-Flavor") != "Google" {
			t.Errorf("asked for %s with %v", r.URL, r.Header)
		}
		w.Header().Set("Metadata-Flavor", flavor)
		_, _ = io.WriteString(w, secret)
	}))
	defer srv.Close()
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(srv.URL, "http://"))
	if got, err := cosign.AmbientToken(t.Context(), "sigstore"); err != nil || got != secret {
		t.Errorf("got %q, %v", got, err)
	}
	flavor = ""
	if got, err := cosign.AmbientToken(t.Context(), "sigstore"); err == nil || got != "" {
		t.Errorf("from something else: got %q, %v", got, err)
	}
	flavor, secret = "Google", token(`{"aud":"other"}`)
	if got, err := cosign.AmbientToken(t.Context(), "sigstore"); err == nil || got != "" || strings.Contains(err.Error(), secret) {
		t.Errorf("for another audience: got %q, %v", got, err)
	}
}

func TestTokenFileIsReadAgainAndChecked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	read := cosign.TokenFile(path)
	if got, err := read(t.Context(), "sigstore"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: got %q, %v", got, err)
	}
	for _, content := range []string{token(`{"aud":"sigstore"}`), token(`{"aud":"sigstore","n":2}`)} {
		if err := os.WriteFile(path, []byte(content+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context(), "sigstore"); err != nil || got != content {
			t.Errorf("got %q, %v", got, err)
		}
	}
	for _, content := range []string{token(`{"aud":"other"}`), "hunter2", strings.Repeat("a", 1<<17), ""} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := read(t.Context(), "sigstore"); err == nil || got != "" || content != "" && strings.Contains(err.Error(), content) {
			t.Errorf("%.20s: got %q, %v", content, got, err)
		}
	}
}

func TestAmbientTokenRefusesAnAudienceThatWouldChangeTheRequest(t *testing.T) {
	for _, audience := range []string{"", "a&b=c", "a b", "a#b", "ä"} {
		if _, err := cosign.AmbientToken(t.Context(), audience); err == nil || errors.Is(err, cosign.ErrNoToken) {
			t.Errorf("%q: got %v", audience, err)
		}
	}
}

// TestImportsStayLight keeps cosign's own dependencies out of applications: its
// verifier would bring ninety modules.
func TestImportsStayLight(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range strings.Fields(string(out)) {
		switch module {
		case "github.com/modelsec/modelsec-go", "github.com/sigstore/cosign/v2", "golang.org/x/crypto":
		default:
			t.Errorf("links module %s", module)
		}
	}
}
