// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/modelsec/modelsec-go/registry"
)

// hostsFile is hosts.toml. What stands outside of [host] is about server.
type hostsFile struct {
	Server string `toml:"server"`
	containerdHost
	Hosts map[string]containerdHost `toml:"host"`

	order []string // of Hosts, as written
}

type containerdHost struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   bool           `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  any            `toml:"dial_timeout"` // ours is ten seconds
}

// Containerd reads dir/HOST/hosts.toml for each of hosts, or else
// dir/_default/hosts.toml, in the directories where containerd looks. A host
// that has neither gets no entry.
//
// The [host] tables with the capability "pull" become Host.Mirrors in their
// order, and may answer for tags if they have "resolve" too; all are told ns, as
// containerd does. Certificates (ca, client) become the TLS of entries of their
// own, under the mirror's host. A server that is not the host itself becomes the
// last mirror; the host that was asked for is still there when it fails.
// skip_verify is refused for https. Paths in the file are relative to it.
func Containerd(dir string, hosts ...string) (map[string]registry.Host, error) {
	c := &containerdReader{hosts: make(map[string]registry.Host), certificates: make(map[string]string)}
	for _, host := range hosts {
		if _, p, err := split(host); err != nil || p != "" {
			return nil, fmt.Errorf("mirrors: %q is not a host", host)
		}
		if err := c.read(dir, host); err != nil {
			return nil, fmt.Errorf("mirrors: %w", err)
		}
	}
	return c.hosts, nil
}

// containerdReader collects what the files of several hosts say.
type containerdReader struct {
	hosts        map[string]registry.Host
	certificates map[string]string // the files that TLS of a host is made of
}

func (c *containerdReader) read(dir, host string) error {
	names := []string{host, "_default"}
	if name, port, ok := strings.Cut(host, ":"); ok && !strings.HasPrefix(host, "[") {
		names = slices.Insert(names, 0, name+"_"+port+"_")
	}
	for _, name := range names {
		file := filepath.Join(dir, name, "hosts.toml")
		b, err := readFile(file)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		f, err := parseHosts(b)
		if err == nil {
			err = c.add(f, filepath.Dir(file), host)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		return nil
	}
	return nil
}

// parseHosts decodes and checks one file.
func parseHosts(b []byte) (*hostsFile, error) {
	f := new(hostsFile)
	keys, unknown, err := decode(b, f)
	if err != nil {
		return nil, err
	}
	for _, key := range unknown {
		return nil, fmt.Errorf("unknown key %q", key.String())
	}
	for _, key := range keys {
		if len(key) >= 2 && key[0] == "host" && !slices.Contains(f.order, key[1]) {
			f.order = append(f.order, key[1])
		}
	}
	if f.Server != "" {
		if _, err := f.containerdHost.mirror(f.Server); err != nil {
			return nil, fmt.Errorf("server: %w", err)
		}
	}
	for _, name := range f.order {
		h := f.Hosts[name]
		if _, err := h.mirror(name); err != nil {
			return nil, fmt.Errorf("host %q: %w", name, err)
		}
	}
	return f, nil
}

func (c *containerdReader) add(f *hostsFile, dir, host string) error {
	var mirrors []registry.Mirror
	entry := func(name string, h containerdHost) error {
		m, err := h.mirror(name)
		if err != nil {
			return err
		}
		u, err := url.Parse(m.URL)
		if err != nil {
			return err
		}
		if err := c.certify(u.Host, h, dir); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if isOrigin(u, host) {
			// Not a mirror; what it says holds for the host all the same.
			if len(m.Header) > 0 {
				return fmt.Errorf("%q: headers for the registry itself are not supported", name)
			}
			own := c.hosts[host]
			own.PlainHTTP = u.Scheme == "http"
			c.hosts[host] = own
			return c.certify(host, h, dir)
		}
		if h.can("pull") {
			m.Namespace = true
			mirrors = append(mirrors, m)
		}
		return nil
	}
	for _, name := range f.order {
		if err := entry(name, f.Hosts[name]); err != nil {
			return err
		}
	}
	if f.Server != "" {
		if err := entry(f.Server, f.containerdHost); err != nil {
			return err
		}
	} else if err := c.certify(host, f.containerdHost, dir); err != nil {
		return err
	}
	own := c.hosts[host]
	own.Mirrors = mirrors
	c.hosts[host] = own
	return nil
}

// isOrigin reports whether an address is that of the registry itself.
func isOrigin(u *url.URL, host string) bool {
	if u.Path != "" && u.Path != "/v2" {
		return false
	}
	return u.Host == host || host == "docker.io" && (u.Host == "registry-1.docker.io" || u.Host == "index.docker.io")
}

func (h containerdHost) can(capability string) bool {
	return h.Capabilities == nil || slices.Contains(h.Capabilities, capability)
}

// mirror describes the host at an address, which may lack its scheme.
func (h containerdHost) mirror(address string) (registry.Mirror, error) {
	if !strings.Contains(address, "://") {
		address = "https://" + address
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return registry.Mirror{}, errors.New("want https://host or http://host, and perhaps a path")
	}
	if _, p, err := split(u.Host); err != nil || p != "" {
		return registry.Mirror{}, fmt.Errorf("%q is not a host", u.Host)
	}
	if h.SkipVerify && u.Scheme == "https" {
		return registry.Mirror{}, errors.New("skip_verify is refused: name the authority with ca instead")
	}
	m := registry.Mirror{Resolve: h.can("resolve"), Header: make(http.Header)}
	if p := path.Clean("/" + u.Path); p != "/" {
		versioned := strings.HasSuffix(p, "/v2")
		if h.OverridePath && !versioned && !strings.HasPrefix(p, "/v2/") {
			return m, fmt.Errorf("override_path without the element v2 in %q is not supported", p)
		}
		if !h.OverridePath && !versioned {
			p += "/v2"
		}
		u.Path, u.RawPath = p, ""
	} else {
		u.Path, u.RawPath = "", ""
	}
	m.URL = u.String()
	for name, value := range h.Header {
		values, err := texts(value)
		if err != nil {
			return m, fmt.Errorf("header %q: %w", name, err)
		}
		m.Header[http.CanonicalHeaderKey(name)] = values
	}
	for _, one := range []any{h.CA, h.Client} {
		if _, err := pairs(one); err != nil {
			return m, err
		}
	}
	return m, nil
}
