// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"crypto/elliptic"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/provenance/oms"
)

// TestCommandAndModelSigningTakeEachOthersCertificates by their command lines.
func TestCommandAndModelSigningTakeEachOthersCertificates(t *testing.T) {
	m, c, s := newModelSigning(t), newCommand(t), newSignerOf(t, elliptic.P384())
	dir := signee(t)
	sig := filepath.Join(dir, oms.SignatureFile)
	chain := pemFile(t, "CERTIFICATE", s.leaf.Raw, s.between.Raw)
	theirs := func(t *testing.T, args ...string) {
		t.Helper()
		if out, err := m.run(args...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	for name, sign := range map[string]func(*testing.T){
		"ours": func(t *testing.T) { c.run(t, 0, "oms", "sign", dir, "--sign-key", s.keyFile, "--certificate", chain) },
		"theirs": func(t *testing.T) {
			theirs(t, "sign", "certificate", "--signature", sig, "--private_key", s.keyFile, "--signing_certificate", s.leafFile,
				"--certificate_chain", s.betweenFile, dir)
		},
	} {
		t.Run(name, func(t *testing.T) {
			sign(t)
			c.run(t, 0, "oms", "verify", dir, "--certificate-root", s.rootFile)
			c.run(t, 3, "oms", "verify", dir, "--certificate-root", s.strangeFile)
			theirs(t, "verify", "certificate", "--signature", sig, "--certificate_chain", s.rootFile, dir)
		})
	}
}
