// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors

import (
	"errors"
	"fmt"
	"path/filepath"
)

// certify makes the TLS configuration of a host from ca and client.
func (c *containerdReader) certify(host string, h containerdHost, dir string) error {
	authorities, err := texts(h.CA)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	clients, err := pairs(h.Client)
	if err != nil {
		return fmt.Errorf("client: %w", err)
	}
	if len(authorities)+len(clients) == 0 {
		return nil
	}
	made := fmt.Sprintf("%q %q %q", dir, authorities, clients)
	if other, ok := c.certificates[host]; ok && other != made {
		return fmt.Errorf("%s has other certificates elsewhere", host)
	}
	c.certificates[host] = made
	within := func(p string) string {
		if filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(dir, p)
	}
	for i, p := range authorities {
		authorities[i] = within(p)
	}
	for i, pair := range clients {
		clients[i] = [2]string{within(pair[0]), within(pair[1])}
	}
	config, err := tlsOf(authorities, clients)
	if err != nil {
		return err
	}
	own := c.hosts[host]
	own.TLS = config
	c.hosts[host] = own
	return nil
}

// texts reads a string or an array of them.
func texts(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var all []string
		for _, one := range v {
			s, ok := one.(string)
			if !ok {
				return nil, errors.New("want text or an array of texts")
			}
			all = append(all, s)
		}
		return all, nil
	}
	return nil, errors.New("want text or an array of texts")
}

// pairs reads files that hold a certificate and its key: one name for both, or
// an array of names, or of pairs of names.
func pairs(v any) ([][2]string, error) {
	array, ok := v.([]any)
	if !ok {
		array = []any{v}
		if v == nil {
			return nil, nil
		}
	}
	var all [][2]string
	for _, one := range array {
		names, err := texts(one)
		switch {
		case err != nil:
			return nil, err
		case len(names) == 1 || len(names) == 2 && names[1] == "":
			all = append(all, [2]string{names[0], names[0]})
		case len(names) == 2:
			all = append(all, [2]string{names[0], names[1]})
		default:
			return nil, errors.New("want a certificate and its key")
		}
	}
	return all, nil
}
