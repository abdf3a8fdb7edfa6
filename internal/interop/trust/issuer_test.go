// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package trust_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// issuer is an OIDC provider with two faces: people by email address, and the
// workflows of a CI system.
type issuer struct {
	server *httptest.Server
	key    *ecdsa.PrivateKey
}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	i := &issuer{key: key}
	i.server = httptest.NewServer(i)
	return i, nil
}

// people and workflows are the URLs of the two.
func (i *issuer) people() string    { return i.server.URL + "/people" }
func (i *issuer) workflows() string { return i.server.URL + "/workflows" }

func (i *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if base, ok := strings.CutSuffix(r.URL.Path, "/.well-known/openid-configuration"); ok {
		_ = json.NewEncoder(w).Encode(map[string]any{
			"issuer": i.server.URL + base, "jwks_uri": i.server.URL + "/keys",
			"authorization_endpoint": i.server.URL + "/none", "token_endpoint": i.server.URL + "/none",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"ES256"},
		})
		return
	}
	point, err := i.key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"keys": []map[string]string{{
		"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": "1",
		"x": base64.RawURLEncoding.EncodeToString(point[1:33]), "y": base64.RawURLEncoding.EncodeToString(point[33:]),
	}}})
}

// token signs a token of ten minutes for Sigstore.
func (i *issuer) token(claims map[string]any) string {
	claims = maps.Clone(claims)
	claims["aud"] = "sigstore"
	claims["iat"] = time.Now().Unix()
	claims["exp"] = time.Now().Add(10 * time.Minute).Unix()
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"ES256","kid":"1","typ":"JWT"}`)) + "." + encode(payload)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return text + "." + encode(signature)
}

func (i *issuer) person(email string) string {
	return i.token(map[string]any{"iss": i.people(), "sub": email, "email": email, "email_verified": true})
}

// workflow is a token as GitHub makes them for a job of a repository that calls
// a workflow.
func (i *issuer) workflow(workflow, repository, ownerID string) string {
	owner, _, _ := strings.Cut(repository, "/")
	return i.token(map[string]any{
		"iss": i.workflows(), "sub": "repo:" + repository + ":ref:refs/heads/main",
		"job_workflow_ref": workflow, "job_workflow_sha": strings.Repeat("a", 40),
		"workflow_ref": repository + "/.github/workflows/ci.yml@refs/heads/main", "workflow_sha": strings.Repeat("b", 40),
		"repository": repository, "repository_id": "1", "repository_owner": owner, "repository_owner_id": ownerID,
		"repository_visibility": "private", "sha": strings.Repeat("b", 40), "ref": "refs/heads/main", "event_name": "push",
		"workflow": "ci", "runner_environment": "github-hosted", "run_id": "7", "run_attempt": "1",
	})
}
