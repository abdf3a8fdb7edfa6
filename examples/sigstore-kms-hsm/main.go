// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Sigstore-kms-hsm is a KMS plugin of Sigstore's for hardware security modules: it
// makes pkcs11: URIs work as modelsec's --sign-key, and hsm:// as cosign's --key,
//
//	cosign sign --key 'hsm://token=release;object=signing?pin-source=/run/pin' …
//
// and keeps the library of the module out of both. What follows hsm:// is what
// follows pkcs11: in RFC 7512. It needs cgo to be built. The library is that of
// module-path or PKCS11_MODULE_PATH, the PIN that of pin-source or PKCS11_PIN.
package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/common"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/modelsec/modelsec-go/encrypt/pkcs11"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "sigstore-kms-hsm:", err)
		os.Exit(1)
	}
}

func run() error {
	args, err := handler.GetPluginArgs(os.Args)
	if err == nil && (args.InitOptions == nil || args.MethodArgs == nil) {
		err = errors.New("want initOptions and methodName")
	}
	if err != nil {
		return fmt.Errorf("this is a plugin for cosign and modelsec: %w", err)
	}
	key, err := open(args.InitOptions)
	if err != nil {
		return errors.Join(err, handler.WriteErrorResponse(os.Stdout, err))
	}
	defer key.Close()
	_, err = handler.Dispatch(os.Stdout, os.Stdin, args, key)
	return err
}

func open(o *common.InitOptions) (*tokenKey, error) {
	c, err := pkcs11.ParseSignerURI("pkcs11:" + o.KeyResourceID)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if o.CtxDeadline != nil {
		ctx, cancel = context.WithDeadline(ctx, *o.CtxDeadline)
	}
	s, err := pkcs11.NewSigner(ctx, c)
	if err != nil {
		cancel()
		return nil, err
	}
	return &tokenKey{Signer: s, ctx: ctx, cancel: cancel, hash: o.HashFunc}, nil
}

// tokenKey is what kms.SignerVerifier asks of a key, for one call.
type tokenKey struct {
	*pkcs11.Signer
	ctx    context.Context
	cancel context.CancelFunc
	hash   crypto.Hash
}

// Close lets go of the token.
func (k *tokenKey) Close() error {
	k.cancel()
	return k.Signer.Close()
}

// PublicKey implements kms.SignerVerifier.
func (k *tokenKey) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return k.Public(), nil
}

// SignMessage implements kms.SignerVerifier.
func (k *tokenKey) SignMessage(message io.Reader, o ...signature.SignOption) ([]byte, error) {
	if _, ok := k.Public().(*ecdsa.PublicKey); !ok {
		whole, err := io.ReadAll(message)
		if err != nil {
			return nil, err
		}
		return k.SignContext(k.ctx, rand.Reader, whole, crypto.Hash(0))
	}
	digest, hash, err := signature.ComputeDigestForSigning(message, k.hash, nil, o...)
	if err != nil {
		return nil, err
	}
	return k.SignContext(k.ctx, rand.Reader, digest, hash)
}

// VerifySignature implements kms.SignerVerifier. It does not ask the token.
func (k *tokenKey) VerifySignature(sig, message io.Reader, o ...signature.VerifyOption) error {
	v, err := signature.LoadVerifier(k.Public(), k.hash)
	if err != nil {
		return err
	}
	return v.VerifySignature(sig, message, o...)
}

// CreateKey implements kms.SignerVerifier.
func (k *tokenKey) CreateKey(context.Context, string) (crypto.PublicKey, error) {
	return nil, errors.New("keys are made with the tools of the token")
}

// CryptoSigner implements kms.SignerVerifier.
func (k *tokenKey) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return k.Signer, k.hash, nil
}

// SupportedAlgorithms implements kms.SignerVerifier.
func (k *tokenKey) SupportedAlgorithms() []string { return []string{k.DefaultAlgorithm()} }

// DefaultAlgorithm implements kms.SignerVerifier, in the names of sigstore's own.
func (k *tokenKey) DefaultAlgorithm() string {
	pub, ok := k.Public().(*ecdsa.PublicKey)
	if !ok {
		return "ed25519"
	}
	return map[elliptic.Curve]string{elliptic.P256(): "ecdsa-p256", elliptic.P384(): "ecdsa-p384", elliptic.P521(): "ecdsa-p521"}[pub.Curve]
}
