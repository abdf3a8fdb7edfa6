// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

const serveLong = `serve opens a model that a policy admits and serves its files on this machine as S3
does: GET, HEAD and ListObjectsV2 of the bucket "model", read only. Every byte was
verified and decrypted before it is sent; only what is asked for is fetched.

Without --listen it serves on a unix socket, in a new directory that only this
user can enter, and admits only processes of this user (Linux).
--listen 127.0.0.1:0 serves TLS on a port that the system chooses, to whoever has
the credentials of this run.

--settings names a directory to be made, for this user only: the file "env" in it
holds the endpoint, the certificate and the credentials, in the variables that AWS
clients read. Nothing secret is printed or passed as an argument. serve removes
the directory when it ends.`

func (t *tool) serveCommand() *cobra.Command {
	var x trust
	var ids identityFlags
	var listen, settings string
	c := &cobra.Command{
		Use:     "serve REF --settings DIR",
		Short:   "Serve a model on this machine as S3 does",
		Long:    serveLong,
		Example: "  modelsec serve registry.example.com/team/llama:v3 --key signing.pub --identity identity.key --listen 127.0.0.1:0 --settings ./run",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.serve(c.Context(), args[0], x, ids, listen, settings)
		},
	}
	x.define(c)
	ids.define(c)
	c.Flags().StringVar(&listen, "listen", "", "loopback `address` with port 0, instead of a unix socket")
	c.Flags().StringVar(&settings, "settings", "", "directory to make for the endpoint and the credentials")
	c.MarkFlagRequired("settings")
	return c
}

func (t *tool) serve(ctx context.Context, target string, x trust, ids identityFlags, listen, settings string) (err error) {
	ref, err := t.version(target)
	if err != nil {
		return err
	}
	client, policy, done, err := t.judge(ref, x)
	if err != nil {
		return err
	}
	defer done()
	if client.Identities, err = ids.load(ctx, t); err != nil {
		return err
	}
	m, err := client.Open(ctx, target, policy)
	if err != nil {
		return ids.missing(err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	done()
	dir, err := newSettings(settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.remove()) }()
	f, err := newFront(listen, dir)
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler:           newGateway(m, f.admit),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ConnContext:       f.connected,
		ErrorLog:          log.New(t.stderr, "", 0),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	fmt.Fprintf(t.stdout, "%s\n", f.endpoint)
	if err := server.Serve(f.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// front is where the gateway listens and whom it admits.
type front struct {
	listener  net.Listener
	endpoint  string
	admit     func(r *http.Request) error
	connected func(ctx context.Context, c net.Conn) context.Context
}

// newFront listens, and writes what clients need to the settings.
func newFront(listen string, dir *settings) (*front, error) {
	if listen == "" {
		return newSocketFront(dir)
	}
	host, port, err := net.SplitHostPort(listen)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() || port != "0" {
		return nil, usagef("--listen %s: want a loopback address with port 0, as in 127.0.0.1:0", listen)
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return nil, err
	}
	config, authority, err := ownCertificate(net.ParseIP(host))
	if err == nil {
		err = dir.write("ca.pem", authority)
	}
	c := credentials{id: secret(hex.EncodeToString, 10), secret: secret(base64.RawURLEncoding.EncodeToString, 32)}
	address := l.Addr().String()
	f := &front{listener: tls.NewListener(l, config), endpoint: "https://" + address}
	f.connected = func(ctx context.Context, _ net.Conn) context.Context { return ctx }
	f.admit = func(r *http.Request) error {
		// Another Host is a browser that was led here by a name.
		if r.Host != address {
			return errSignature
		}
		return c.verify(r, time.Now())
	}
	if err == nil {
		err = dir.writeEnv(f.endpoint, "AWS_CA_BUNDLE="+dir.file("ca.pem"), "AWS_ACCESS_KEY_ID="+c.id, "AWS_SECRET_ACCESS_KEY="+c.secret, "AWS_REGION=us-east-1", "AWS_DEFAULT_REGION=us-east-1")
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return f, nil
}

func secret(encode func([]byte) string, n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return encode(b)
}

// ownCertificate makes a certificate for an address that vouches for itself,
// whose key is nowhere but in this process.
func ownCertificate(ip net.IP) (*tls.Config, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IPAddresses: []net.IP{ip}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return config, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), nil
}
