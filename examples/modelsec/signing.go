// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/cosign"
	"github.com/modelsec/modelsec-go/provenance/kmsplugin"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

const maxRootFile = 1 << 20

// passwordVariable is where cosign looks for the password of its key files.
const passwordVariable = "COSIGN_PASSWORD"

// signFlags are the flags by which a verb signs.
type signFlags struct {
	key     string
	keyless bool
	token   string
	config  string
	roots   *[]string // of trust, where the verb has that
	own     bool      // else
}

// define adds the flags. x is the verb's trust, if any, with which it shares
// --trusted-root.
func (s *signFlags) define(c *cobra.Command, x *trust) {
	f := c.Flags()
	f.StringVar(&s.key, "sign-key", "", "private key `file` to sign with, of cosign's with the password in $"+passwordVariable+"; or\nNAME://KEY of the plugin sigstore-kms-NAME, or pkcs11:URI of the plugin sigstore-kms-hsm")
	f.BoolVar(&s.keyless, "keyless", false, "sign as the identity that a token names, under a certificate of minutes (docs/TRUST.md)")
	f.StringVar(&s.token, "identity-token", "", "with --keyless, `file` with the OIDC token (default: what the CI job or the machine\nhands out)")
	f.StringVar(&s.config, "signing-config", "", "`file` that names the Sigstore services to sign with, also for --sign-key\n(default with --keyless: the public instance, fetched over TUF)")
	if x != nil {
		s.roots = &x.roots
	} else {
		s.roots, s.own = new([]string), true
		f.StringArrayVar(s.roots, "trusted-root", nil, "with --signing-config, trusted root `file` of the same instance")
	}
	c.MarkFlagsMutuallyExclusive("sign-key", "keyless")
	c.MarkFlagsMutuallyExclusive("sign-key", "identity-token")
}

// given says whether the verb shall sign.
func (s *signFlags) given() bool { return s.key != "" || s.keyless }

// load returns who signs, or nothing. The public key is that of --sign-key.
func (s *signFlags) load(ctx context.Context, t *tool) (provenance.Signer, crypto.PublicKey, error) {
	switch {
	case s.token != "" && !s.keyless:
		return nil, nil, usagef("--identity-token is for --keyless")
	case s.config != "" && !s.given():
		return nil, nil, usagef("--signing-config says with which services, and not who signs: give --keyless or --sign-key F")
	case s.own && s.config == "" && len(*s.roots) > 0:
		return nil, nil, usagef("--trusted-root belongs to --signing-config")
	case !s.given():
		return nil, nil, nil
	}
	var key crypto.Signer
	var pub crypto.PublicKey
	var err error
	if s.key != "" {
		if key, err = s.privateKey(ctx); err != nil {
			return nil, nil, err
		}
		pub = key.Public()
	}
	var signer provenance.Signer
	if key != nil && s.config == "" {
		signer, err = provenance.KeySigner(key)
	} else {
		var o sigstore.SignerOptions
		if o, err = s.services(ctx, t); err != nil {
			return nil, nil, err
		}
		if o.Key = key; key == nil {
			o.Token = s.identityToken
		}
		signer, err = sigstore.NewSigner(o)
	}
	if err != nil {
		return nil, nil, usage(err)
	}
	return signer, pub, nil
}

// tokenPlugin is our plugin for PKCS#11, and tokenScheme how its keys are named
// everywhere else.
const (
	tokenPlugin = "hsm"
	tokenScheme = "pkcs11:"
)

// pluginKey opens a key in a key service.
func pluginKey(ctx context.Context, uri string) (crypto.Signer, error) {
	if rest, ok := strings.CutPrefix(uri, tokenScheme); ok {
		uri = tokenPlugin + "://" + rest
	}
	key, err := kmsplugin.Open(ctx, uri, nil)
	switch name, _, _ := strings.Cut(uri, "://"); {
	case err == nil:
		return key, nil
	case !errors.Is(err, exec.ErrNotFound):
		return nil, err
	case name == tokenPlugin:
		return nil, usage(err).hinted("go -C examples/sigstore-kms-%s install . in a clone makes it", name)
	default:
		return nil, usage(err).hinted("sigstore-kms-%s is a KMS plugin for Sigstore: docs/TRUST.md §1.3", name)
	}
}

// privateKey opens the key of --sign-key. A file may be under a password as
// cosign writes it; ./ keeps one whose name looks like a URI a file.
func (s *signFlags) privateKey(ctx context.Context) (crypto.Signer, error) {
	if kmsplugin.Is(s.key) || strings.HasPrefix(s.key, tokenScheme) {
		return pluginKey(ctx, s.key)
	}
	text, err := readKeyFile(s.key)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	if !cosign.IsKey(text) {
		return loadPrivateKey(s.key)
	}
	password, ok := os.LookupEnv(passwordVariable)
	if !ok {
		return nil, usagef("%s is a key of cosign's, under a password", s.key).hinted("$%s gives the password, which may be empty", passwordVariable)
	}
	key, err := cosign.ParseKey(text, []byte(password))
	if err != nil {
		return nil, usagef("%s: %w", s.key, err)
	}
	return key, nil
}

// services reads or fetches what names and proves the services.
func (s *signFlags) services(ctx context.Context, t *tool) (o sigstore.SignerOptions, err error) {
	switch roots := *s.roots; {
	case s.config != "" && len(roots) == 1:
		if o.SigningConfig, err = readFile(s.config, maxRootFile); err != nil {
			return o, err
		}
		o.TrustedRoot, err = readFile(roots[0], maxRootFile)
		return o, err
	case s.config != "":
		return o, usagef("--signing-config needs the one --trusted-root of the same instance: what the services return is verified before it is used")
	}
	t.say("no --signing-config: signing with the public Sigstore instance, whose logs everybody can read")
	o.TrustedRoot, o.SigningConfig, err = sigstore.Fetch(ctx, nil)
	return o, err
}

// identityToken is never an argument: other processes can read those.
func (s *signFlags) identityToken(ctx context.Context, audience string) (string, error) {
	if s.token == "" {
		token, err := cosign.AmbientToken(ctx, audience)
		if err != nil {
			return "", usage(err).hinted("--identity-token F reads one from a file")
		}
		return token, nil
	}
	token, err := cosign.TokenFile(s.token)(ctx, audience)
	if err != nil {
		return "", usage(err)
	}
	return token, nil
}
