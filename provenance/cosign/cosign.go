// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package cosign borrows from cosign what is light enough to import: the search
// for an OIDC token that the machine hands out, which keyless signing starts from.
// AmbientToken, and what TokenFile returns, are what sigstore.SignerOptions take.
// ParseKey opens its key files.
//
// What this module writes is read by the cosign tool without this package. Its
// tests hold our constants to cosign's.
package cosign

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/sigstore/cosign/v2/pkg/providers"
	// The providers register themselves, and are asked in that order.
	_ "github.com/sigstore/cosign/v2/pkg/providers/envvar"
	"github.com/sigstore/cosign/v2/pkg/providers/filesystem"
	_ "github.com/sigstore/cosign/v2/pkg/providers/github"
)

// ErrNoToken is returned where no provider is present on this machine.
var ErrNoToken = errors.New("no ambient identity token: want GitHub Actions with permission id-token: write, " +
	"SIGSTORE_ID_TOKEN as GitLab sets it, a service account of Google Cloud, or the token file " + filesystem.FilesystemTokenPath)

// maxToken is several times the largest token that providers issue.
const maxToken = 64 << 10

// AmbientToken returns an OIDC token for the audience (for Sigstore, "sigstore")
// from where cosign would find one: SIGSTORE_ID_TOKEN (GitLab), the file
// /var/run/sigstore/cosign/oidc-token (a projected volume of Kubernetes), GitHub
// Actions, and where there is none of these, Google Cloud. A provider that ignores the audience is
// found out: a token for somebody else is an error, and is not returned. The
// token is a secret; no error of this function contains it.
func AmbientToken(ctx context.Context, audience string) (string, error) {
	// The GitHub provider puts the audience into a URL as it is.
	if audience == "" || strings.ContainsFunc(audience, unsafeInQuery) {
		return "", fmt.Errorf("audience %q: want letters, digits and any of -._~:/", audience)
	}
	provide := providers.Provide
	if !providers.Enabled(ctx) {
		if !onGoogle() {
			return "", ErrNoToken
		}
		provide = googleToken
	}
	token, err := provide(ctx, audience)
	if err != nil {
		return "", fmt.Errorf("ambient identity token: %w", err)
	}
	token = strings.TrimSpace(token)
	if err := checkAudience(token, audience); err != nil {
		return "", fmt.Errorf("ambient identity token: %w", err)
	}
	return token, nil
}

// TokenFile returns a function that reads the token from a file each time, since
// whoever wrote it renews it. What it returns is checked as AmbientToken checks it.
func TokenFile(path string) func(ctx context.Context, audience string) (string, error) {
	return func(ctx context.Context, audience string) (string, error) {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
		if err != nil {
			return "", err
		}
		token := strings.TrimSpace(string(b))
		if err := checkAudience(token, audience); err != nil {
			return "", fmt.Errorf("identity token of %s: %w", path, err)
		}
		return token, nil
	}
}

func unsafeInQuery(r rune) bool {
	switch {
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
		return false
	}
	return !strings.ContainsRune("-._~:/", r)
}

// checkAudience reads the claim without verifying the token, which is for the
// one it is addressed to.
func checkAudience(token, audience string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || len(token) > maxToken {
		return errors.New("not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return errors.New("not a JWT: payload is not base64url")
	}
	var claims struct {
		Audience audiences `json:"aud"`
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return errors.New("not a JWT: payload has no readable audience")
	}
	if !slices.Contains(claims.Audience, audience) {
		return fmt.Errorf("issued for audience %q, want %q", []string(claims.Audience), audience)
	}
	return nil
}

// audiences is one string or a list (RFC 7519 §4.1.3).
type audiences []string

func (a *audiences) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*a = audiences{one}
		return nil
	}
	var list []string
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	*a = list
	return nil
}
