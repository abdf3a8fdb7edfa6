// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// The command conformance is the client that the sigstore-conformance suite
// calls, over the public API of package sigstore:
//
//	conformance verify-bundle --bundle F [--trusted-root F] [--staging]
//	    (--certificate-identity I --certificate-oidc-issuer U | --key F) FILE_OR_DIGEST
//	conformance sign-bundle --in-toto --identity-token T --bundle F
//	    --trusted-root F --signing-config F FILE
//
// The suite's tests of signing without --in-toto are for others: models are
// signed by statements only.
package main

import (
	"context"
	"crypto"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/opencontainers/go-digest"
	"github.com/sigstore/sigstore-go/pkg/tuf"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options struct {
	bundle, root, config     string
	identity, issuer, key    string
	token                    string
	statement, staging       bool
	subject                  string // the one argument
	trustedRoot, signingConf []byte
}

func run(ctx context.Context, args []string) error {
	verbs := map[string]func(context.Context, options) error{"verify-bundle": verifyBundle, "sign-bundle": signBundle}
	if len(args) == 0 || verbs[args[0]] == nil {
		return errors.New("usage: conformance verify-bundle|sign-bundle --bundle F … FILE")
	}
	var o options
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	f.StringVar(&o.bundle, "bundle", "", "the bundle `file`")
	f.StringVar(&o.root, "trusted-root", "", "trusted root `file` (default: fetched over TUF)")
	f.StringVar(&o.config, "signing-config", "", "signing configuration `file` (default: fetched over TUF)")
	f.StringVar(&o.identity, "certificate-identity", "", "the subject that the certificate must name")
	f.StringVar(&o.issuer, "certificate-oidc-issuer", "", "the issuer that the certificate must name")
	f.StringVar(&o.key, "key", "", "public key `file` that must have signed")
	f.StringVar(&o.token, "identity-token", "", "OIDC token to sign with")
	f.BoolVar(&o.statement, "in-toto", false, "FILE is a statement, to be signed in an envelope")
	f.BoolVar(&o.staging, "staging", false, "use the staging instance")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if f.NArg() != 1 || o.bundle == "" {
		return errors.New("want --bundle F and one file or digest")
	}
	o.subject = f.Arg(0)
	if err := o.readTrust(ctx); err != nil {
		return err
	}
	return verbs[args[0]](ctx, o)
}

// readTrust asks TUF for what no file was given for.
func (o *options) readTrust(ctx context.Context) (err error) {
	if o.root != "" {
		if o.trustedRoot, err = os.ReadFile(o.root); err != nil {
			return err
		}
	}
	if o.config != "" {
		if o.signingConf, err = os.ReadFile(o.config); err != nil {
			return err
		}
	}
	if o.trustedRoot != nil {
		return nil
	}
	var fetch *sigstore.FetchOptions
	if o.staging {
		fetch = &sigstore.FetchOptions{Repository: tuf.StagingMirror, Root: tuf.StagingRoot()}
	}
	o.trustedRoot, o.signingConf, err = sigstore.Fetch(ctx, fetch)
	return err
}

var digestArgument = regexp.MustCompile(`^sha(256|384|512):[0-9a-f]+$`)

func verifyBundle(ctx context.Context, o options) error {
	trust := sigstore.VerifierOptions{TrustedRoots: [][]byte{o.trustedRoot}}
	if o.key != "" {
		text, err := os.ReadFile(o.key)
		if err != nil {
			return err
		}
		pub, err := provenance.ParsePublicKey(text)
		if err != nil {
			return err
		}
		trust.Keys = []crypto.PublicKey{pub}
	}
	verifier, err := sigstore.NewVerifier(trust)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(o.bundle)
	if err != nil {
		return err
	}
	verified, err := verifySubject(ctx, verifier, b, o.subject)
	if err != nil {
		return err
	}
	signer := verified.Signer
	switch {
	case o.key != "":
		if signer.Key == "" {
			return fmt.Errorf("signed by %s, want the key", signer)
		}
	case o.issuer == "" || o.identity == "":
		return errors.New("want --key, or --certificate-identity and --certificate-oidc-issuer")
	case signer.Issuer != o.issuer || signer.Subject != o.identity:
		return fmt.Errorf("signed by %s, want %s (%s)", signer, o.identity, o.issuer)
	}
	return nil
}

func verifySubject(ctx context.Context, v *sigstore.Verifier, b []byte, subject string) (*provenance.Verified, error) {
	if digestArgument.MatchString(subject) {
		return v.VerifyDigest(ctx, b, digest.Digest(subject))
	}
	content, err := os.Open(subject)
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return v.VerifyArtifact(ctx, b, content)
}

func signBundle(ctx context.Context, o options) error {
	if !o.statement {
		return errors.New("signs statements only: want --in-toto")
	}
	signer, err := sigstore.NewSigner(sigstore.SignerOptions{
		TrustedRoot: o.trustedRoot, SigningConfig: o.signingConf,
		Token: func(context.Context, string) (string, error) { return o.token, nil },
	})
	if err != nil {
		return err
	}
	file, err := os.Open(o.subject)
	if err != nil {
		return err
	}
	defer file.Close()
	statement, err := io.ReadAll(file)
	if err != nil {
		return err
	}
	b, err := signer.Sign(ctx, provenance.PayloadType, statement)
	if err != nil {
		return err
	}
	return os.WriteFile(o.bundle, b.Bytes(), 0o600)
}
