// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

const omsLong = `oms signs a directory, and verifies one, with OpenSSF Model Signing 1.0, as the
Python tool model_signing does. It is about files on this machine, and says nothing
about an artifact: that is what push signs and verify judges (docs/TRUST.md §4).

Left out are .git, .gitattributes, .github, .gitignore, the signature and --ignore.`

// omsResult is the JSON form of a signed model, and of a verified one.
type omsResult struct {
	Model     string        `json:"model"`
	Signature string        `json:"signature"`
	Digest    digest.Digest `json:"digest"` // over the digests of all files
	Files     int           `json:"files"`
	Signer    string        `json:"signer,omitempty"`
	Unsigned  []string      `json:"unsigned,omitempty"`
}

// omsFlags are those of both verbs.
type omsFlags struct {
	signature string
	ignore    []string
}

func (o *omsFlags) define(c *cobra.Command) {
	c.Flags().StringVar(&o.signature, "signature", "", "signature `file` (default: DIR/"+oms.SignatureFile+")")
	c.Flags().StringArrayVar(&o.ignore, "ignore", nil, "file or directory below DIR, as a `path` with slashes, that does not belong to the model\n(may be repeated)")
}

// files are where the signature is and what does not belong to the model.
func (o *omsFlags) files(dir string) (signature string, ignore []string, err error) {
	if o.signature == "" {
		return filepath.Join(dir, oms.SignatureFile), o.ignore, nil
	}
	root, err := filepath.Abs(dir)
	if err != nil {
		return "", nil, err
	}
	at, err := filepath.Abs(o.signature)
	if err != nil {
		return "", nil, err
	}
	if inside, err := filepath.Rel(root, at); err == nil && filepath.IsLocal(inside) {
		return o.signature, append(slices.Clone(o.ignore), filepath.ToSlash(inside)), nil
	}
	return o.signature, o.ignore, nil
}

func (t *tool) omsCommand() *cobra.Command {
	c := &cobra.Command{Use: "oms", Short: "Sign and verify directories with OpenSSF Model Signing", Long: omsLong}
	t.add(c, t.omsSignCommand(), t.omsVerifyCommand())
	return c
}

func (t *tool) omsSignCommand() *cobra.Command {
	var sign signFlags
	var flags omsFlags
	var chain string
	c := &cobra.Command{
		Use:     "sign DIR (--sign-key F | --keyless)",
		Short:   "Sign the files of a directory",
		Long:    omsLong,
		Example: "  modelsec oms sign ./llama --sign-key signing.key",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.omsSign(c.Context(), args[0], chain, flags, sign)
		},
	}
	sign.define(c, nil)
	flags.define(c)
	c.Flags().StringVar(&chain, "certificate", "", "with --sign-key, PEM `file` with the certificate of the key and those above it, without the root")
	c.MarkFlagsOneRequired("sign-key", "keyless")
	c.MarkFlagsMutuallyExclusive("certificate", "keyless")
	return c
}

func (t *tool) omsSign(ctx context.Context, dir, chain string, flags omsFlags, sign signFlags) error {
	signer, err := t.omsSigner(ctx, chain, sign)
	if err != nil {
		return err
	}
	path, ignore, err := flags.files(dir)
	if err != nil {
		return err
	}
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	b, err := oms.Sign(ctx, signer, os.DirFS(dir), filepath.Base(absolute), &oms.SignOptions{IgnorePaths: ignore})
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return err
	}
	m, err := oms.ParseManifest(b.Envelope().Payload)
	if err != nil {
		return err
	}
	out := omsResult{Model: m.Name, Signature: path, Digest: m.Root, Files: len(m.Resources)}
	return t.result(out, func(w io.Writer) { fmt.Fprintln(w, path) })
}

// omsSigner is sign.load for keys as Model Signing names them.
func (t *tool) omsSigner(ctx context.Context, chain string, sign signFlags) (provenance.Signer, error) {
	if sign.keyless || sign.token != "" {
		signer, _, err := sign.load(ctx, t)
		return signer, err
	}
	if sign.config != "" || len(*sign.roots) > 0 {
		return nil, usagef("--signing-config and --trusted-root are for --keyless: a model signed with a key is in no log")
	}
	key, err := sign.privateKey(ctx)
	if err != nil {
		return nil, err
	}
	if chain == "" {
		signer, err := oms.KeySigner(key)
		return signer, usageOf(err)
	}
	certificates, err := readCertificates(chain)
	if err != nil {
		return nil, err
	}
	signer, err := oms.CertificateSigner(key, certificates...)
	return signer, usageOf(err)
}

// usageOf is usage of an error that may be none.
func usageOf(err error) error {
	if err == nil {
		return nil
	}
	return usage(err)
}

// readCertificates reads a file of certificates in PEM.
func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := readFile(path, maxRootFile)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil || block.Type != "CERTIFICATE" {
			return nil, usagef("%s: PEM block of type %.40q: want certificates: %w", path, block.Type, err)
		}
		out = append(out, c)
	}
	if len(out) == 0 {
		return nil, usagef("%s: no certificate in PEM", path)
	}
	return out, nil
}

// omsTrust is whom a reader of a signed directory trusts: exactly one kind.
type omsTrust struct {
	key, certificateRoots  string
	identity, issuer, root string
}

func (t *tool) omsVerifyCommand() *cobra.Command {
	var flags omsFlags
	var x omsTrust
	c := &cobra.Command{
		Use:     "verify DIR (--key F | --certificate-root F | --certificate-identity S)",
		Short:   "Hold the files of a directory to their signature",
		Long:    omsLong,
		Example: "  modelsec oms verify ./llama --key signing.pub",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.omsVerify(c.Context(), args[0], flags, x)
		},
	}
	flags.define(c)
	f := c.Flags()
	f.StringVar(&x.key, "key", "", "public key `file`: who must have signed")
	f.StringVar(&x.certificateRoots, "certificate-root", "", "PEM `file` of authorities: whoever has a certificate for signing by one may have signed")
	f.StringVar(&x.identity, "certificate-identity", "", "email address or URI: the identity that must have signed")
	f.StringVar(&x.issuer, "certificate-oidc-issuer", "", "`URL` of the issuer that vouches for --certificate-identity")
	f.StringVar(&x.root, "trusted-root", "", "with --certificate-identity, `file` that says whose certificates, logs and timestamps to believe")
	c.MarkFlagsOneRequired("key", "certificate-root", "certificate-identity")
	c.MarkFlagsMutuallyExclusive("key", "certificate-root", "certificate-identity")
	c.MarkFlagsRequiredTogether("certificate-identity", "certificate-oidc-issuer", "trusted-root")
	return c
}

func (t *tool) omsVerify(ctx context.Context, dir string, flags omsFlags, x omsTrust) error {
	verifier, signers, err := x.load()
	if err != nil {
		return err
	}
	path, ignore, err := flags.files(dir)
	if err != nil {
		return err
	}
	text, err := readFile(path, maxBundleFile)
	if err != nil {
		return err
	}
	b, err := provenance.ParseBundle(text)
	if err != nil {
		return err
	}
	got, err := oms.Verify(ctx, verifier, b, os.DirFS(dir), &oms.VerifyOptions{Signers: signers, IgnorePaths: ignore})
	if err != nil {
		return err
	}
	out := omsResult{Model: got.Manifest.Name, Signature: path, Digest: got.Manifest.Root, Files: len(got.Manifest.Resources),
		Signer: got.Verified.Signer.String(), Unsigned: got.Unsigned}
	return t.result(out, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d signed files, as %s signed them\n", dir, out.Files, out.Signer)
		for _, p := range out.Unsigned {
			fmt.Fprintf(w, "not signed: %q\n", p)
		}
	})
}

func (x *omsTrust) load() (provenance.Verifier, []provenance.Principal, error) {
	switch {
	case x.key != "":
		_, pub, err := loadPublicKey(x.key)
		return provenance.KeyVerifier(pub), nil, err
	case x.certificateRoots != "":
		certificates, err := readCertificates(x.certificateRoots)
		if err != nil {
			return nil, nil, err
		}
		roots := x509.NewCertPool()
		for _, c := range certificates {
			roots.AddCert(c)
		}
		return oms.CertificateVerifier(roots, time.Time{}), nil, nil
	}
	root, err := readFile(x.root, maxRootFile)
	if err != nil {
		return nil, nil, err
	}
	v, err := sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{root}})
	return v, []provenance.Principal{{Issuer: x.issuer, Subject: x.identity}}, usageOf(err)
}
