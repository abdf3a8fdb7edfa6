// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"crypto"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

const emptyManifest = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.empty.v1+json",` +
	`"digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}`

// TestVerifierTakesWhatCosignLogged in a log of version 1 and attached under a
// tag, as it did before bundles.
func TestVerifierTakesWhatCosignLogged(t *testing.T) {
	program, err := exec.LookPath("cosign")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("CI needs the program cosign")
		}
		t.Skip("not tried: the program cosign is missing")
	}
	i := newInstance(t)
	server := httptest.NewServer(ociserver.New())
	t.Cleanup(server.Close)
	manifests := server.URL + "/v2/team/model/manifests/"
	put := must(http.NewRequestWithContext(t.Context(), http.MethodPut, manifests+"v1", strings.NewReader(emptyManifest)))
	put.Header.Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	if resp := must(http.DefaultClient.Do(put)); resp.Body.Close() != nil || resp.StatusCode != http.StatusCreated {
		t.Fatal(resp.Status)
	}
	manifest := digest.FromString(emptyManifest)

	dir := t.TempDir()
	cosign := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir, cmd.Env = dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + dir, "COSIGN_PASSWORD="}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cosign %s: %v\n%s", args[0], err, out)
		}
	}
	cosign("generate-key-pair")
	if err := os.WriteFile(filepath.Join(dir, "predicate.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	cosign("attest", "--new-bundle-format=false", "--rekor-url", i.URL, "--key", "cosign.key", "--yes", "--allow-http-registry",
		"--type", provenance.PredicateRelease, "--predicate", "predicate.json", strings.TrimPrefix(server.URL, "http://")+"/team/model@"+string(manifest))

	var attached struct {
		Layers []struct {
			MediaType   string
			Digest      string
			Annotations map[string]string
		}
	}
	get := func(url string) []byte {
		t.Helper()
		resp := must(http.DefaultClient.Do(must(http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))))
		defer resp.Body.Close()
		return must(io.ReadAll(resp.Body))
	}
	text := get(manifests + "sha256-" + manifest.Encoded() + ".att")
	if err := json.Unmarshal(text, &attached); err != nil || len(attached.Layers) != 1 || attached.Layers[0].MediaType != provenance.EnvelopeMediaType {
		t.Fatalf("cosign attached %s (%v)", text, err)
	}
	layer := attached.Layers[0]
	b := must(provenance.ParseCosignLayer(get(server.URL+"/v2/team/model/blobs/"+layer.Digest), layer.Annotations))
	pub := must(provenance.ParsePublicKey(must(os.ReadFile(filepath.Join(dir, "cosign.pub")))))
	v := must(sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{i.trustedRoot(t, i.authorities())}, Keys: []crypto.PublicKey{pub}}))
	got, err := v.Verify(t.Context(), b)
	if err != nil || got.Signer.Key == "" || got.LogEntries != 1 || len(got.Times) != 1 || got.Subjects[0] != manifest || got.Statement.PredicateType != provenance.PredicateRelease {
		t.Errorf("proved %+v, %v", got, err)
	}
}
