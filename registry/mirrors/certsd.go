// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/modelsec/modelsec-go/registry"
)

// CertificateDirs returns the directories in which podman looks for the
// certificates of registries, in its order: that of the user, that of the
// machine, that of Docker. They may not exist.
func CertificateDirs() []string {
	var dirs []string
	if dir, err := os.UserConfigDir(); err == nil {
		dirs = append(dirs, filepath.Join(dir, "containers", "certs.d"))
	}
	return append(dirs, "/etc/containers/certs.d", "/etc/docker/certs.d")
}

// Certificates reads the certificates that Docker and podman use for each of
// hosts, from the first of dirs that has a directory of the host's name, port
// included. There every file *.crt holds authorities, in addition to those of
// the system, and every NAME.cert with NAME.key a certificate that is shown to
// a registry that asks for one. They become Host.TLS. A host without a directory,
// or with an empty one, gets no entry; half a pair is an error.
func Certificates(dirs []string, hosts ...string) (map[string]registry.Host, error) {
	found := make(map[string]registry.Host)
	for _, host := range hosts {
		if _, p, err := split(host); err != nil || p != "" {
			return nil, fmt.Errorf("mirrors: %q is not a host", host)
		}
		for _, dir := range dirs {
			dir = filepath.Join(dir, host)
			entries, err := os.ReadDir(dir)
			if absent(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("mirrors: %w", err)
			}
			config, err := hostCertificates(dir, entries)
			if err != nil {
				return nil, fmt.Errorf("mirrors: %s: %w", dir, err)
			}
			if config != nil {
				found[host] = registry.Host{TLS: config}
			}
			break
		}
	}
	return found, nil
}

// hostCertificates reads the directory of one host; nil: there is nothing.
func hostCertificates(dir string, entries []os.DirEntry) (*tls.Config, error) {
	var authorities []string
	var clients [][2]string
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch stem, ext := strings.TrimSuffix(name, filepath.Ext(name)), filepath.Ext(name); ext {
		case ".crt":
			authorities = append(authorities, name)
		case ".cert":
			clients = append(clients, [2]string{name, stem + ".key"})
		case ".key":
			if _, err := os.Stat(stem + ".cert"); err != nil {
				return nil, fmt.Errorf("%s has no certificate beside it: authorities are *.crt, certificates to show *.cert", e.Name())
			}
		}
	}
	if len(authorities)+len(clients) == 0 {
		return nil, nil
	}
	return tlsOf(authorities, clients)
}

// tlsOf makes the configuration of a host from files with further authorities
// and with certificates to show, each beside the file of its key.
func tlsOf(authorities []string, clients [][2]string) (*tls.Config, error) {
	config := new(tls.Config)
	if len(authorities) > 0 {
		var err error
		if config.RootCAs, err = x509.SystemCertPool(); err != nil {
			config.RootCAs = x509.NewCertPool()
		}
	}
	for _, name := range authorities {
		b, err := readFile(name)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("ca: %s holds no certificate", name)
		}
	}
	for _, pair := range clients {
		var blocks [2][]byte
		for i, name := range pair {
			var err error
			if blocks[i], err = readFile(name); err != nil {
				return nil, fmt.Errorf("client: %w", err)
			}
		}
		certificate, err := tls.X509KeyPair(blocks[0], blocks[1])
		if err != nil {
			return nil, fmt.Errorf("client: %s: %w", pair[0], err)
		}
		config.Certificates = append(config.Certificates, certificate)
	}
	return config, nil
}
