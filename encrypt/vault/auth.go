// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
)

// Auth says how a token is obtained. Tokens that a login returns are renewed
// where they can be, when two thirds of their lifetime are over and a request is
// due; else there is another login. Nothing happens in the background, and no
// token is revoked at the end.
type Auth struct {
	// Method is Token, AppRole or Kubernetes.
	Method string
	// Mount is the path of the auth method. Empty: approle or kubernetes.
	Mount string
	// Role is the role id of AppRole, or the name of a role of Kubernetes.
	Role string
	// Secret returns the token, the secret id, or the token of the service
	// account. It is called for each login, so that what it reads may change. It
	// must be safe for concurrent use.
	Secret func() (string, error)
}

// The methods of [Auth].
const (
	Token      = "token"
	AppRole    = "approle"
	Kubernetes = "kubernetes"
)

// ServiceAccountFile is where a pod finds the token of its service account.
const ServiceAccountFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Secret returns a function that returns s.
func Secret(s string) func() (string, error) {
	return func() (string, error) { return s, nil }
}

// SecretFile returns a function that reads the file, of at most 64 KiB, each
// time: an agent or the kubelet may replace it.
func SecretFile(path string) func() (string, error) {
	return func() (string, error) {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxAnswer+1))
		defer clear(b)
		if err != nil {
			return "", err
		}
		if len(b) > maxAnswer {
			return "", fmt.Errorf("%s has more than %d bytes", path, maxAnswer)
		}
		return strings.TrimSpace(string(b)), nil
	}
}

func (a Auth) check() error {
	switch a.Method {
	case Token:
		if a.Mount != "" || a.Role != "" {
			return errors.New("vault: auth by token has neither mount nor role")
		}
	case AppRole, Kubernetes:
		if a.Role == "" {
			return fmt.Errorf("vault: auth by %s needs a role", a.Method)
		}
		if a.Mount != "" && !segments.MatchString(a.Mount) {
			return fmt.Errorf("vault: auth mount %.80q", a.Mount)
		}
	default:
		return fmt.Errorf("vault: auth method %.40q; known are %s, %s and %s", a.Method, Token, AppRole, Kubernetes)
	}
	if a.Secret == nil {
		return fmt.Errorf("vault: auth by %s needs a secret", a.Method)
	}
	return nil
}

func (a Auth) normal() Auth {
	if a.Mount == "" {
		a.Mount = a.Method
	}
	return a
}

// login obtains a token.
func (c *client) login(ctx context.Context) (token, error) {
	secret, err := c.auth.Secret()
	if err != nil {
		return token{}, err
	}
	if secret == "" || strings.ContainsFunc(secret, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return token{}, errors.New("the secret is empty or not printable")
	}
	var in any
	switch c.auth.Method {
	case AppRole:
		in = struct {
			Role   string `json:"role_id"`
			Secret string `json:"secret_id"`
		}{c.auth.Role, secret}
	case Kubernetes:
		in = struct {
			Role string `json:"role"`
			JWT  string `json:"jwt"`
		}{c.auth.Role, secret}
	default:
		return token{value: secret}, nil
	}
	t, err := c.obtain(ctx, "auth/"+c.auth.Mount+"/login", "", in)
	if errors.Is(err, encrypt.ErrDecrypt) || errors.Is(err, encrypt.ErrDisabled) {
		// 400 and 404 mean something else here: a role or secret that is unknown.
		return token{}, encrypt.ErrDenied
	}
	return t, err
}

// renew prolongs the token.
func (c *client) renew(ctx context.Context) (token, error) {
	return c.obtain(ctx, "auth/token/renew-self", c.token.value, struct{}{})
}

func (c *client) obtain(ctx context.Context, path, with string, in any) (token, error) {
	var out struct {
		Auth struct {
			ClientToken   string `json:"client_token"`
			LeaseDuration int64  `json:"lease_duration"` // seconds
			Renewable     bool   `json:"renewable"`
		} `json:"auth"`
	}
	now := time.Now()
	if err := c.post(ctx, path, with, in, &out); err != nil {
		return token{}, err
	}
	a := out.Auth
	if a.ClientToken == "" || len(a.ClientToken) > http.DefaultMaxHeaderBytes/4 {
		return token{}, errors.New("the server returned no token")
	}
	const year = 365 * 24 * 60 * 60
	return token{a.ClientToken, a.Renewable, now, time.Duration(min(max(a.LeaseDuration, 0), year)) * time.Second}, nil
}
