// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Modelsec-helper-cdh is a key helper for confidential containers: it takes the
// private key of a model from the endpoint that a guest of the
// confidential-containers project has inside, which gets it from the key broker
// after the guest was attested.
//
//	GET http://127.0.0.1:8006/cdh/resource/REPOSITORY/TYPE/TAG
//
// The owner of a model makes a key pair with modelsec keygen, puts the private
// key file into the broker as the resource default/modelsec/llama, say, under a
// policy that says which guests may have it, and pushes to the public key file.
// In the guest the program stands in PATH and the key is named
//
//	helper:cdh:default/modelsec/llama
//
// CDH_URL or -url names another port of the loopback interface.
//
// Grants bear no sign of the broker, are post-quantum where the key pair is, and
// the broker sees no request for wrapping. The key is fetched for every call and
// kept nowhere. Whoever is root in the guest can fetch it too: what the guest may
// run is for its measurement to say.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

func main() {
	endpoint := flag.String("url", cmp.Or(os.Getenv("CDH_URL"), "http://127.0.0.1:8006"), "the API of the guest's own components, on the loopback interface")
	flag.Parse()
	g, err := newGuest(*endpoint)
	if err != nil {
		fmt.Fprintln(os.Stderr, "modelsec-helper-cdh:", err)
		os.Exit(2)
	}
	keyhelper.Main(g.open)
}

// guest is the endpoint inside a guest.
type guest struct {
	base   string
	client *http.Client
}

// newGuest refuses an endpoint that is not on this host: the key crosses it in
// the clear.
func newGuest(endpoint string) (*guest, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" || u.Path != "" || u.RawQuery != "" || u.User != nil {
		return nil, errors.New("-url: want http://ADDRESS:PORT")
	}
	if ip := net.ParseIP(u.Hostname()); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("-url: %s is not an address of the loopback interface", u.Hostname())
	}
	return &guest{u.Scheme + "://" + u.Host, &http.Client{
		Transport: &http.Transport{DisableKeepAlives: true}, // and no proxy
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("the endpoint redirects")
		},
	}}, nil
}

// resource is REPOSITORY/TYPE/TAG, with names that mean the same in a path.
var resource = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){2}$`)

// maxKeyFile is more than the longest private key file has.
const maxKeyFile = 64 << 10

// open fetches the private key with the given name.
func (g *guest) open(ctx context.Context, name string) (*keyhelper.Key, error) {
	if !resource.MatchString(name) {
		return nil, fmt.Errorf("cdh: resource %.80q; want REPOSITORY/TYPE/TAG", name)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base+"/cdh/resource/"+name, nil)
	if err != nil {
		return nil, fmt.Errorf("cdh: %w", err)
	}
	resp, err := g.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("cdh: %w: %w", encrypt.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("cdh: resource %s: %w", name, statusError(resp.StatusCode))
	}
	file, err := io.ReadAll(io.LimitReader(resp.Body, maxKeyFile+1))
	defer clear(file)
	if err != nil {
		return nil, fmt.Errorf("cdh: resource %s: %w: %w", name, encrypt.ErrUnavailable, err)
	}
	if len(file) > maxKeyFile {
		return nil, fmt.Errorf("cdh: resource %s has more than %d bytes", name, maxKeyFile)
	}
	id, err := encrypt.ParseIdentity(strings.TrimSpace(string(file)) + "\n")
	if err != nil {
		return nil, fmt.Errorf("cdh: resource %s is no private key file of modelsec", name)
	}
	r := id.Recipient()
	return &keyhelper.Key{Type: r.Type(), Resource: r.Bytes(), Recipient: r, Identity: id}, nil
}

// statusError says what the broker said, as far as the endpoint passes it on: it
// reports much as a fault of its own.
func statusError(status int) error {
	err := fmt.Errorf("status %d", status)
	switch {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("%w: %w", encrypt.ErrDenied, err)
	case status == http.StatusNotFound || status == http.StatusGone:
		return fmt.Errorf("%w: %w", encrypt.ErrDisabled, err)
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("%w: %w", encrypt.ErrThrottled, err)
	case status >= 500:
		return fmt.Errorf("%w: %w", encrypt.ErrUnavailable, err)
	}
	return err
}
