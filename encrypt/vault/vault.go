// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package vault wraps the keys of models with the transit secrets engine of
// HashiCorp Vault or OpenBao.
//
// A [Key] names one key of one engine and is both an encrypt.Recipient
// (transit/encrypt) and an encrypt.Identity (transit/decrypt). What is sent are
// the 128 bytes of a grant (FORMAT.md §8.2) with its context as associated data,
// so only keys of an AEAD type work: aes256-gcm96, aes128-gcm96 and
// chacha20-poly1305. The engine's rewrap is never used: it ignores associated
// data. A grant is renewed by unwrapping and wrapping.
//
// The policy of whoever pushes needs update on MOUNT/encrypt/KEY, that of whoever
// pulls update on MOUNT/decrypt/KEY. Nobody needs create: with it, a misspelt name
// makes a new key instead of an error.
//
// Every call is one request, and a login before it where there is no token or
// after it where the token was refused; package encrypt decides whether another
// follows. Errors are those of encrypt.ErrDenied and its neighbours. What the
// server says is recognised and never quoted, for it may quote the request.
// Standby nodes that redirect to another host are not followed: no other host
// than that of the configuration sees a token.
//
// The package does not promise that the key stays inside Vault: a data key is
// sent to be wrapped and comes back unwrapped, through TLS, in ordinary memory.
package vault

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
)

// Type is the type of the stanzas of this package (FORMAT.md §8.4).
const Type = "vault-transit"

// Config says where a key is and how to get at it.
type Config struct {
	// Address is that of the server or of an agent: https://HOST[:PORT], or
	// http:// with an address of the loopback interface.
	Address string
	// Namespace is sent along. Empty: none.
	Namespace string
	// Mount is the path of the transit engine. Empty: transit.
	Mount string
	// Key is the name of the key: letters, digits, and inside also _ . and -.
	Key string
	// Cluster tells keys of one namespace, mount and name in several clusters
	// apart, so that a grant can be for all of them. Whoever wraps and whoever
	// unwraps must say the same; the address is not part of the key id, as there
	// are many for one cluster. Empty: there is one cluster.
	Cluster string
	// Auth is how a token is obtained.
	Auth Auth
	// TLS is used for connections, say for a private authority or a client
	// certificate. Nil: the system's authorities.
	TLS *tls.Config
}

// A Key is a key of a transit engine. It implements encrypt.Recipient, Identity,
// Keyed, Caller and Classed, is safe for concurrent use, keeps a token until it
// is refused or nearly expired, and formats as its name.
type Key struct {
	name     string
	resource string
	path     string // below the version of the API: MOUNT/%s/KEY
	client   *client
}

// segments is what the parts of a path may be.
var segments = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$`)

// New returns the key that c describes. It makes no request.
func New(c Config) (*Key, error) {
	if c.Mount == "" {
		c.Mount = "transit"
	}
	base, err := checkAddress(c.Address)
	if err != nil {
		return nil, err
	}
	if !segments.MatchString(c.Mount) || !segments.MatchString(c.Key) || strings.Contains(c.Key, "/") {
		return nil, fmt.Errorf("vault: mount %.80q and key %.80q; want letters, digits, and inside also _ . and -", c.Mount, c.Key)
	}
	if namespace := strings.Trim(c.Namespace, "/"); namespace != "" && !segments.MatchString(namespace) {
		return nil, fmt.Errorf("vault: namespace %.80q", c.Namespace)
	}
	if strings.ContainsFunc(c.Cluster, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, fmt.Errorf("vault: cluster %.80q; want printable ASCII without spaces", c.Cluster)
	}
	if err := c.Auth.check(); err != nil {
		return nil, err
	}
	// Not that of the process, which others may have set up for less than a key.
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     c.TLS.Clone(),
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     90 * time.Second,
		ForceAttemptHTTP2:   true,
	}
	namespace := strings.Trim(c.Namespace, "/")
	return &Key{
		name:     fmt.Sprintf("vault key %s/%s at %s", c.Mount, c.Key, base),
		resource: strings.Join([]string{c.Cluster, namespace, c.Mount, c.Key}, "\x00"),
		path:     c.Mount + "/%s/" + c.Key,
		client: &client{
			base:      base,
			namespace: namespace,
			auth:      c.Auth.normal(),
			http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
				return http.ErrUseLastResponse
			}},
			lock: make(chan struct{}, 1),
		},
	}, nil
}

// checkAddress returns the address without a path. A token is a password: it
// leaves the host through TLS only.
func checkAddress(address string) (string, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("vault: the address must be https://HOST[:PORT]")
	}
	ip := net.ParseIP(u.Hostname())
	loopback := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	if u.Scheme != "https" && !(u.Scheme == "http" && loopback) {
		return "", fmt.Errorf("vault: address %s://%s: want https, or an address of the loopback interface", u.Scheme, u.Host)
	}
	return u.Scheme + "://" + u.Host, nil
}

// KeyID returns the id of the key in the artifact of b.
func (k *Key) KeyID(b encrypt.Binding) string { return b.KeyID(Type, []byte(k.resource)) }

// CallsOut returns true.
func (k *Key) CallsOut() bool { return true }

// Class returns encrypt.PostQuantum: the engine takes associated data for
// symmetric keys only, so what lies at the registry does not fall to a quantum
// computer.
func (k *Key) Class() encrypt.WrapClass { return encrypt.PostQuantum }

// Wrap implements encrypt.Recipient with the newest version of the key.
func (k *Key) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	var out struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	err := k.client.call(ctx, fmt.Sprintf(k.path, "encrypt"), transitRequest{Plaintext: key, AssociatedData: b.Context()}, &out)
	if errors.Is(err, encrypt.ErrDecrypt) {
		err = errors.New("the server does not take the request") // and there is no ciphertext to blame
	}
	if err != nil {
		return encrypt.Stanza{}, k.errorf("encrypt", err)
	}
	body := []byte(out.Data.Ciphertext)
	if !wellFormed(body) {
		return encrypt.Stanza{}, k.errorf("encrypt", fmt.Errorf("the server returned %d bytes that are no ciphertext of %d bytes by an AEAD key", len(body), len(key)))
	}
	return encrypt.Stanza{Type: Type, KeyID: k.KeyID(b), Body: body}, nil
}

// Unwrap implements encrypt.Identity. What the server does not decrypt with any
// version of the key that it still takes is encrypt.ErrDecrypt.
func (k *Key) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != Type || s.KeyID != k.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	if len(s.Params) != 0 || !wellFormed(s.Body) {
		return nil, fmt.Errorf("%s stanza: %w", Type, encrypt.ErrDecrypt)
	}
	var out struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	err := k.client.call(ctx, fmt.Sprintf(k.path, "decrypt"), transitRequest{Ciphertext: string(s.Body), AssociatedData: b.Context()}, &out)
	if err != nil {
		return nil, k.errorf("decrypt", err)
	}
	return out.Data.Plaintext, nil
}

// transitRequest is the body of both operations. encoding/json writes the bytes
// as the base64 that the engine takes.
type transitRequest struct {
	Plaintext      []byte `json:"plaintext,omitempty"`
	Ciphertext     string `json:"ciphertext,omitempty"`
	AssociatedData []byte `json:"associated_data"`
}

// wellFormed is whether body is what the engine makes of 128 bytes: the version
// of the key, and nonce, ciphertext and tag in base64.
func wellFormed(body []byte) bool {
	m := ciphertext.FindSubmatch(body)
	if m == nil {
		return false
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(string(m[1]))
	return err == nil && len(raw) == 12+128+16
}

var ciphertext = regexp.MustCompile(`^vault:v[1-9][0-9]{0,8}:([A-Za-z0-9+/]+=*)$`)

func (k *Key) errorf(op string, err error) error { return fmt.Errorf("%s: %s: %w", k.name, op, err) }

// String returns the name of the key and the address.
func (k *Key) String() string { return k.name }

// Format writes the name for every verb, and so never a token.
func (k *Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.name) }

// MarshalText returns the name.
func (k *Key) MarshalText() ([]byte, error) { return []byte(k.name), nil }
