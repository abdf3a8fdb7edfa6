// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/oms"
	"github.com/modelsec/modelsec-go/registry"
)

// hint returns the next step after an error, or nothing where there is none to
// give.
func (t *tool) hint(status int, err error) string {
	var known *failure
	var refused *provenance.PolicyError
	var mismatch *oms.MismatchError
	switch {
	case errors.As(err, &known) && known.hint != "":
		return known.hint
	case status == statusUsage && !t.started:
		return t.path + " --help"
	case errors.As(err, &refused):
		return t.refusalHint(refused.Report)
	case status == statusInterrupted:
		return t.interruptHint()
	case errors.As(err, &mismatch):
		return "get the model again, or leave out with --ignore what does not belong to it"
	case errors.Is(err, modelsec.ErrGrantSigned):
		return "the grant is signed: --sign-key signs what takes its place"
	case errors.Is(err, modelsec.ErrPartial):
		return "pull --file PATH, for each file that you were granted"
	case errors.Is(err, encrypt.ErrExpired):
		return "the grant has expired: ask the owner of the model for a new one"
	case errors.Is(err, encrypt.ErrDenied):
		return "whoever runs the key service can let you use the key; docs/KEYS.md lists the permissions"
	case errors.Is(err, encrypt.ErrDisabled):
		return "whoever runs the key service can say what became of the key"
	case isAny(err, encrypt.ErrUnavailable, encrypt.ErrThrottled):
		return "a key service could not be asked; the same command may work later"
	case status == statusNoKey:
		return fmt.Sprintf("ask somebody who can open it for: modelsec grant %s --identity THEIRS --recipient YOURS, with your identity.pub", t.ref)
	case errors.Is(err, modelsec.ErrNotRevoked):
		return "delete that manifest with the registry's own tools, or push the model again, which makes a new key"
	case errors.Is(err, modelsec.ErrSource):
		return "--exclude GLOB leaves files out, --follow-symlinks pushes what links point to"
	case errors.Is(err, modelsec.ErrLimit):
		return "--memory gives the command more room"
	case t.verb == "pull" && errors.Is(err, fs.ErrExist):
		return "pull to a directory that is absent or empty"
	case isAny(err, modelsec.ErrNoSpace, syscall.ENOSPC):
		if t.verb == "pull" {
			return "make room, and the same command goes on with what it has; or pull to another disk"
		}
		return "make room on that disk, or choose another"
	case status == statusRefused:
		return "these are not the bytes that were published: fetch from another place, and tell whoever runs this one"
	case status == statusRegistry:
		return t.registryHint(err)
	}
	return ""
}

// interruptHint says what was kept.
func (t *tool) interruptHint() string {
	switch t.verb {
	case "pull":
		return "the same command goes on: what is on the disk and proves itself is not fetched again"
	case "push", "cp", "tag":
		return "the tag was not moved; the same command starts again"
	}
	return ""
}

// refusalHint goes by the first clause that refused.
func (t *tool) refusalHint(r *provenance.Report) string {
	refused := r.Refused()
	if len(refused) == 0 {
		return ""
	}
	pinned := fmt.Sprintf("%s@%s", r.Reference, r.Manifest)
	switch refused[0].Name {
	case "policy":
		return "correct the policy"
	case "rule":
		if strings.HasPrefix(r.Reference, layoutPrefix) {
			return "--name HOST/PATH says which repository the layout stands for"
		}
		return "add a rule for this repository to the policy; where this is a copy, --name HOST/PATH says of which repository"
	case "release.name":
		return "--name gives the name that it was released under"
	case "release.tag":
		return fmt.Sprintf("ask by digest, or release it under the tag: modelsec tag %s TAG --sign-key F", pinned)
	case "policyExpiry", "release.expiry":
		return "check the clock of this machine; if it is right, a new release is needed"
	case "predicateType":
		for _, s := range r.Statements {
			if s.PredicateType != "" {
				return fmt.Sprintf("add what is missing: modelsec attest %s --sign-key F --type URI --predicate F", pinned)
			}
		}
		if len(r.Statements) > 0 {
			return "it bears signatures, none by the keys of the policy: compare them with the key of the publisher"
		}
		return "nothing signed is attached: its publisher must push with --sign-key; attestations from elsewhere come in with --bundle F"
	}
	return ""
}

func (t *tool) registryHint(err error) string {
	var authority x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	e := registryError(err)
	h := host(t.ref)
	switch {
	case errors.Is(err, registry.ErrUnauthorized), e != nil && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden):
		if e != nil && e.Host != "" {
			h = e.Host
		}
		return fmt.Sprintf("docker login %s, with an account that may do this", h)
	case errors.Is(err, registry.ErrNotFound) && t.verb == "revoke":
		return fmt.Sprintf("modelsec grants %s lists the key ids", t.ref)
	case errors.Is(err, registry.ErrNotFound) && t.verb != "tags" && t.ref.Name != "":
		return fmt.Sprintf("modelsec tags %s lists the tags", t.ref.Name)
	case errors.As(err, &authority), errors.As(err, &certificate):
		return "--ca-file F names the authority that signed the registry's certificate"
	case strings.Contains(err.Error(), "HTTP response to HTTPS client"):
		return "the registry speaks HTTP without TLS: --plain-http, in a network that you trust"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "check the host name; there is no default registry"
	case t.verb == "doctor":
		return "check the address, the firewall and the proxy variables"
	case h != "":
		return fmt.Sprintf("modelsec doctor %s looks closer", t.ref)
	}
	return ""
}
