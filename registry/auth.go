// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"oras.land/oras-go/v2/registry/remote/auth"
)

// userAgent names the library; registries log it and rate-limit by it.
const userAgent = "modelsec-go"

// authorizer sends requests with the credential of one registry. The work is
// that of oras-go, but for token services that the caller named: oras-go
// refuses every service in a private network that bears another name than
// the registry.
type authorizer struct {
	routes      *routes
	host        string // key of scopes and credentials
	credentials func(ctx context.Context, host string) (Credential, error)
	http        *http.Client
	oras        *auth.Client

	mu     sync.Mutex
	tokens map[string]string // by scope, of named services
}

func newAuthorizer(r *routes, name string, find func(ctx context.Context, host string) (Credential, error)) *authorizer {
	a := &authorizer{
		routes:      r,
		host:        r.registry.Host,
		credentials: func(ctx context.Context, _ string) (Credential, error) { return find(ctx, name) },
		http:        &http.Client{Transport: r, CheckRedirect: checkRedirect},
		tokens:      make(map[string]string),
	}
	a.oras = &auth.Client{
		Client:   a.http,
		Header:   http.Header{"User-Agent": {userAgent}},
		Cache:    repositoryCache{auth.NewCache()},
		ClientID: userAgent,
		Credential: func(ctx context.Context, host string) (auth.Credential, error) {
			found, err := a.credentials(ctx, host)
			return auth.Credential(found), err
		},
	}
	return a
}

// do sends req, for which ctx names the scopes. The request is sent again
// after a 401, so its body must be rewindable unless it is authorized already.
func (a *authorizer) do(req *http.Request, scopes []string) (*http.Response, error) {
	ctx := auth.AppendScopesForHost(req.Context(), a.host, scopes...)
	req = req.WithContext(ctx)
	if len(a.routes.trusted) == 0 || req.Header.Get("Authorization") != "" {
		return a.oras.Do(req)
	}
	key := strings.Join(auth.GetAllScopesForHost(ctx, a.host), " ")
	a.mu.Lock()
	token := a.tokens[key]
	a.mu.Unlock()
	resp, err := a.send(req, token)
	if err != nil || resp.StatusCode != http.StatusUnauthorized || !sameOrigin(resp.Request.URL, a.routes.registry) {
		return resp, err
	}
	realm, service, ok := bearerChallenge(resp.Header.Get("WWW-Authenticate"))
	resp.Body.Close()
	if !ok || !a.routes.trusts(realm) {
		return a.oras.Do(req)
	}
	token, err = a.fetchToken(ctx, realm, service, key)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	a.tokens[key] = token
	a.mu.Unlock()
	return a.send(req, token)
}

// resume sends a request whose body exists once, with the authorization that
// the session was begun with.
func (a *authorizer) resume(req *http.Request, authorization string) (*http.Response, error) {
	req.Header.Set("User-Agent", userAgent)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	return a.http.Do(req)
}

func (a *authorizer) send(req *http.Request, token string) (*http.Response, error) {
	req = req.Clone(req.Context())
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		req.Body = body
	}
	req.Header.Set("User-Agent", userAgent)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	return a.http.Do(req)
}

// fetchToken asks a named token service for an access token. A reply that
// redirects is refused, for the request carries the credential.
func (a *authorizer) fetchToken(ctx context.Context, realm *url.URL, service, scopes string) (string, error) {
	c, err := a.credentials(ctx, a.host)
	if err != nil {
		return "", fmt.Errorf("%w: credential: %w", ErrUnauthorized, err)
	}
	if c.AccessToken != "" {
		return c.AccessToken, nil
	}
	form := url.Values{"service": {service}}
	var req *http.Request
	if c.RefreshToken != "" {
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", c.RefreshToken)
		form.Set("client_id", userAgent)
		form.Set("scope", scopes)
		req, err = http.NewRequestWithContext(ctx, http.MethodPost, realm.String(), strings.NewReader(form.Encode()))
	} else {
		form["scope"] = strings.Fields(scopes)
		u := *realm
		u.RawQuery = form.Encode()
		req, err = http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	}
	if err != nil {
		return "", errors.New("token service has no usable address")
	}
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	} else if c.Username != "" {
		req.SetBasicAuth(c.Username, c.Password)
	}
	req.Header.Set("User-Agent", userAgent)
	client := http.Client{Transport: a.routes, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", &tokenError{resp.StatusCode}
	}
	var reply struct {
		Token       string `json:"token"`
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxToken)).Decode(&reply); err != nil {
		return "", errors.New("token service sent no JSON")
	}
	if reply.AccessToken == "" {
		reply.AccessToken = reply.Token
	}
	if reply.AccessToken == "" {
		return "", errors.New("token service sent no token")
	}
	return reply.AccessToken, nil
}

// tokenError is a refusal by a token service.
type tokenError struct{ status int }

func (e *tokenError) Error() string { return fmt.Sprintf("token service answered status %d", e.status) }

func (e *tokenError) Is(target error) bool {
	return target == ErrUnauthorized && (e.status == http.StatusUnauthorized || e.status == http.StatusForbidden)
}

// bearerChallenge takes realm and service out of a WWW-Authenticate header.
func bearerChallenge(header string) (realm *url.URL, service string, ok bool) {
	scheme, rest, _ := strings.Cut(header, " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, "", false
	}
	// A quoted string may hold commas, and nothing that a media type's
	// parameters may not.
	_, params, err := mime.ParseMediaType("a/b;" + separateParams(rest))
	if err != nil {
		return nil, "", false
	}
	realm, err = url.Parse(params["realm"])
	if err != nil || realm.Host == "" || realm.User != nil {
		return nil, "", false
	}
	return realm, params["service"], true
}

// separateParams turns the commas between parameters into semicolons.
func separateParams(s string) string {
	quoted := false
	return strings.Map(func(r rune) rune {
		switch {
		case r == '"':
			quoted = !quoted
		case r == ',' && !quoted:
			return ';'
		}
		return r
	}, s)
}
