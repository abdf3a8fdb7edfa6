// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// ParseURI returns the configuration that a URI and the environment describe:
//
//	hashivault://[HOST[:PORT]]/[MOUNT/]KEY[?PARAMETER=VALUE&…]
//	hashivault://KEY
//
// Without a host, and in the second form, which other tools know, the address is
// that of VAULT_ADDR or BAO_ADDR. Parameters are
//
//	namespace    default VAULT_NAMESPACE or BAO_NAMESPACE
//	cluster      see Config
//	auth         token (the default), approle or kubernetes
//	auth-mount   default the name of the method
//	role         the role id, or the name of the role
//	secret-file  with the token, the secret id or the service account's token
//	ca-file      authorities in PEM, default VAULT_CACERT or BAO_CACERT
//
// Without secret-file a token is that of VAULT_TOKEN or BAO_TOKEN, else that of
// .vault-token in the home directory; the secret id is that of VAULT_SECRET_ID;
// the service account's token is at its usual place. No secret is part of a URI.
func ParseURI(uri string) (Config, error) {
	rest, ok := strings.CutPrefix(uri, "hashivault://")
	if !ok {
		return Config{}, errors.New("vault: want hashivault://[HOST[:PORT]]/[MOUNT/]KEY")
	}
	u, err := url.Parse("https://" + rest)
	if err != nil || u.User != nil || u.Fragment != "" || u.RawPath != "" {
		return Config{}, errors.New("vault: want hashivault://[HOST[:PORT]]/[MOUNT/]KEY, without credentials")
	}
	params, err := parameters(u.RawQuery)
	if err != nil {
		return Config{}, err
	}
	c := Config{Namespace: cmp.Or(params["namespace"], env("NAMESPACE")), Cluster: params["cluster"]}
	if u.Path == "" {
		u.Host, u.Path = "", u.Host
	}
	if c.Address = env("ADDR"); u.Host != "" {
		c.Address = "https://" + u.Host
	} else if c.Address == "" {
		return Config{}, errors.New("vault: no address: the URI has none, and VAULT_ADDR is not set")
	}
	path := strings.TrimPrefix(u.Path, "/")
	if at := strings.LastIndex(path, "/"); at >= 0 {
		c.Mount, path = path[:at], path[at+1:]
	}
	c.Key = path
	if c.Auth, err = auth(params); err != nil {
		return Config{}, err
	}
	if file := cmp.Or(params["ca-file"], env("CACERT")); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return Config{}, fmt.Errorf("vault: authorities: %w", err)
		}
		c.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		if !c.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return Config{}, fmt.Errorf("vault: %s holds no certificate", file)
		}
	}
	return c, nil
}

// parameters returns those of a query, each at most once.
func parameters(query string) (map[string]string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, errors.New("vault: the parameters of the URI cannot be read")
	}
	params := make(map[string]string)
	for name, v := range values {
		switch name {
		case "namespace", "cluster", "auth", "auth-mount", "role", "secret-file", "ca-file":
		default:
			return nil, fmt.Errorf("vault: parameter %.40q; known are namespace, cluster, auth, auth-mount, role, secret-file and ca-file", name)
		}
		if len(v) != 1 || v[0] == "" {
			return nil, fmt.Errorf("vault: parameter %s must have one value", name)
		}
		params[name] = v[0]
	}
	return params, nil
}

func auth(params map[string]string) (Auth, error) {
	a := Auth{Method: cmp.Or(params["auth"], Token), Mount: params["auth-mount"], Role: params["role"]}
	if file := params["secret-file"]; file != "" {
		a.Secret = SecretFile(file)
		return a, nil
	}
	switch a.Method {
	case Token:
		if t := env("TOKEN"); t != "" {
			a.Secret = Secret(t)
		} else if home, err := os.UserHomeDir(); err == nil {
			a.Secret = SecretFile(filepath.Join(home, ".vault-token"))
		} else {
			return Auth{}, errors.New("vault: no token: VAULT_TOKEN is not set, and there is no home directory")
		}
	case AppRole:
		s := os.Getenv("VAULT_SECRET_ID")
		if s == "" {
			return Auth{}, errors.New("vault: no secret id: the URI has no secret-file, and VAULT_SECRET_ID is not set")
		}
		a.Secret = Secret(s)
	case Kubernetes:
		a.Secret = SecretFile(ServiceAccountFile)
	}
	return a, nil
}

// env returns a variable of Vault, or its namesake of OpenBao.
func env(name string) string { return cmp.Or(os.Getenv("VAULT_"+name), os.Getenv("BAO_"+name)) }
