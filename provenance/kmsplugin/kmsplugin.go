// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package kmsplugin signs with keys that stay in a key service, by way of
// Sigstore's KMS plugins, which cosign calls too.
//
// A plugin is an executable sigstore-kms-NAME in PATH, and its keys are named
// NAME://KEY. It is run once for each signature, with the protocol version and a
// JSON document as arguments, and answers with JSON on stdout
// (github.com/sigstore/sigstore, pkg/signature/kms/cliplugin). The URI and the
// digest that is signed are arguments, which other users of the host can read: a
// secret belongs into the environment.
//
// A plugin is found in PATH by an absolute path. It finds in its environment PATH,
// HOME, the folder for temporary files, GODEBUG, what names proxies and
// certificates, and the variables of its own service, and nothing else; it runs in
// a process group of its own that is killed when the context ends, and may answer
// 64 KiB. It cannot make a wrong signature count: provenance.KeySigner verifies
// what comes back.
//
//	key, err := kmsplugin.Open(ctx, "awskms:///alias/release", nil)
//	signer, err := provenance.KeySigner(key)
package kmsplugin

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/internal/program"
	"github.com/modelsec/modelsec-go/provenance"
)

// ErrPlugin is wrapped by errors about what a plugin did: that it failed, was too
// slow, or answered something else than the protocol has.
var ErrPlugin = errors.New("KMS plugin failed")

// Options say how a plugin is run. Nil or zero fields mean the defaults.
type Options struct {
	// Env is what the plugin finds in its environment beside what the package
	// comment names: "NAME=value", or "NAME" and "PREFIX_*" for variables of this
	// process that are passed on where they are set.
	Env []string
	// Timeout is for one call. If less than or equal to 0, a default (currently 30
	// seconds) is used; more than two minutes are two minutes.
	Timeout time.Duration
}

const (
	defaultTimeout = 30 * time.Second
	maxTimeout     = 2 * time.Minute

	// maxURI bounds what is an argument, maxMessage what a key is given to sign
	// that signs messages and not digests, and maxAnswer all that a plugin says.
	maxURI     = 2 << 10
	maxMessage = 8 << 20
	maxAnswer  = 64 << 10
)

// A Key is a key that a plugin signs with. It implements crypto.Signer and
// provenance.ContextSigner, is safe for concurrent use, and holds nothing that
// has to be closed.
type Key struct {
	program  program.Program
	name     string // of the plugin
	resource string
	public   crypto.PublicKey
}

var _ provenance.ContextSigner = (*Key)(nil)

// pluginName is that of a URI, and so of a program.
var pluginName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Is reports whether text has the form NAME://KEY.
func Is(text string) bool {
	name, _, ok := strings.Cut(text, "://")
	return ok && pluginName.MatchString(name)
}

// Open asks the plugin of uri for the public key, which must be ECDSA P-256,
// P-384, P-521 or Ed25519. Errors wrap exec.ErrNotFound where there is no such
// program, and ErrPlugin where it failed.
func Open(ctx context.Context, uri string, o *Options) (*Key, error) {
	if o == nil {
		o = &Options{}
	}
	if len(uri) > maxURI || !Is(uri) || strings.ContainsRune(uri, 0) {
		return nil, fmt.Errorf("%.80q is not the URI of a key: want NAME://KEY, at most %d bytes", uri, maxURI)
	}
	name, resource, _ := strings.Cut(uri, "://")
	path, err := program.Find(prefix + name)
	if err != nil {
		return nil, err
	}
	k := &Key{name: name, resource: resource, program: program.Program{Path: path, Timeout: o.Timeout, Answer: maxAnswer,
		Env: append(program.Variables(name), o.Env...)}}
	if k.program.Timeout <= 0 {
		k.program.Timeout = defaultTimeout
	}
	k.program.Timeout = min(k.program.Timeout, maxTimeout)
	answer, err := k.call(ctx, crypto.SHA256, request{Method: methodPublicKey, PublicKey: &publicKeyArgs{}}, nil)
	if err != nil {
		return nil, err
	}
	if answer.PublicKey == nil || len(answer.PublicKey.PEM) == 0 {
		return nil, k.errorf("it returned no public key")
	}
	if k.public, err = provenance.ParsePublicKey(answer.PublicKey.PEM); err != nil {
		return nil, k.errorf("%w", err)
	}
	return k, nil
}

// Public returns the public key.
func (k *Key) Public() crypto.PublicKey { return k.public }

// Sign is SignContext without a context: it ends with the timeout.
func (k *Key) Sign(rand io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	return k.SignContext(context.Background(), rand, digest, o)
}

// SignContext has the plugin sign a digest of the hash of o, or, where that is
// zero, a message of at most 8 MiB. The randomness is the plugin's own. What it
// returns is not verified.
func (k *Key) SignContext(ctx context.Context, _ io.Reader, digest []byte, o crypto.SignerOpts) ([]byte, error) {
	hash, message := o.HashFunc(), []byte(nil)
	args := &signArgs{}
	switch {
	case hash != 0 && len(digest) != hash.Size():
		return nil, fmt.Errorf("%s: digest of %d bytes, want %d of %s", k, len(digest), hash.Size(), hash)
	case hash != 0:
		args.Options.Message = messageOptions{Digest: digest, Hash: &hash}
	case len(digest) > maxMessage:
		return nil, fmt.Errorf("%s: message of %d bytes, limit %d", k, len(digest), maxMessage)
	default:
		message = digest
	}
	if hash == 0 {
		hash = crypto.SHA512 // of Ed25519
	}
	answer, err := k.call(ctx, hash, request{Method: methodSign, Sign: args}, message)
	if err != nil {
		return nil, err
	}
	if answer.Sign == nil || len(answer.Sign.Signature) == 0 {
		return nil, k.errorf("it returned no signature")
	}
	return answer.Sign.Signature, nil
}

// String returns the URI of the key.
func (k *Key) String() string { return k.name + "://" + k.resource }

// errorf names the program.
func (k *Key) errorf(format string, args ...any) error {
	return fmt.Errorf("%s%s: %w: %w", prefix, k.name, ErrPlugin, fmt.Errorf(format, args...))
}
