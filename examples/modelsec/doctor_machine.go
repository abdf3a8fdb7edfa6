// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/fips140"
	"errors"
	"os"
	"runtime"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyuri"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

// machine checks what does not depend on the reference.
func (x *examination) machine() {
	switch err := tryLock(); {
	case errors.Is(err, errors.ErrUnsupported):
		x.note("mlock", checkUnknown, "", "not supported on %s", runtime.GOOS)
	case err != nil:
		x.note("mlock", checkWarn, "raise the limit (ulimit -l, LimitMEMLOCK=), or turn swap off", "a page could not be locked (%v): the key of an open model may reach the swap", err)
	default:
		x.note("mlock", checkOK, "", "the page of a key stays out of the swap")
	}
	if fips140.Enforced() {
		x.note("fips", checkOK, "", "FIPS 140-3 enforced: key files under a passphrase cannot be read")
	} else {
		x.note("fips", checkOK, "", "FIPS 140-3 %s", fipsMode())
	}
}

// keys checks that every file given is one of its kind.
func (x *examination) keys(ctx context.Context, o doctorFlags) {
	for _, path := range o.trust.keys {
		_, _, err := loadPublicKey(path)
		x.file("key", path, "public key", err)
	}
	if path := o.trust.file(); path != "" {
		_, err := o.trust.fromFile(x.ref)
		var refused *provenance.PolicyError
		if errors.As(err, &refused) {
			err = nil
		}
		x.file("policy", path, "policy without errors", err)
	}
	for _, path := range o.trust.roots {
		text, err := readFile(path, maxRootFile)
		if err == nil {
			_, err = sigstore.NewVerifier(sigstore.VerifierOptions{TrustedRoots: [][]byte{text}})
		}
		x.file("trusted-root", path, "trusted root", err)
	}
	if o.signKey != "" {
		_, _, err := loadSigner(o.signKey)
		x.secret("sign-key", o.signKey, "private key", err)
	}
	for _, path := range o.identities.keys {
		if keyuri.Is(path) {
			_, err := openKey(ctx, path)
			x.file("identity", keyName(path), "a key that its helper knows", err)
			continue
		}
		text, err := readKeyFile(path)
		if err == nil && protected(text) && o.identities.passphraseFile == "" {
			x.note("identity", checkUnknown, "--passphrase-file F tries it", "%s: under a passphrase", path)
			continue
		}
		if err == nil {
			_, err = o.identities.loadOne(ctx, x.t, path)
		}
		if errors.Is(err, encrypt.ErrFIPS) {
			x.note("identity", checkFail, "use an identity without a passphrase while FIPS 140-3 is enforced", "%s: %v", path, err)
			continue
		}
		x.secret("identity", path, "private key", err)
	}
}

func (x *examination) file(name, path, what string, err error) {
	if err != nil {
		x.failed(name, err)
		return
	}
	x.note(name, checkOK, "", "%s: %s", path, what)
}

// secret is file for what others must not read.
func (x *examination) secret(name, path, what string, err error) {
	info, statErr := os.Stat(path)
	if err == nil && statErr == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		x.note(name, checkWarn, "chmod 600 "+path, "%s: %s that others on this machine may read (%v)", path, what, info.Mode().Perm())
		return
	}
	x.file(name, path, what, err)
}
