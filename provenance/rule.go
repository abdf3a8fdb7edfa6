// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"crypto"
	"slices"
)

// everyone is all whose signatures a caller must verify to judge the rule.
func (r Rule) everyone() []Principal {
	all := slices.Concat(r.signers(), r.GrantSigners, r.lists)
	if r.Plaintext != nil {
		all = append(all, r.Plaintext.Signers...)
	}
	if r.Summary != nil {
		all = append(all, r.Summary.Signers...)
	}
	return all
}

// Keys returns every key whose signatures the rule hears, for KeyVerifier; those
// of denial lists too where the rule comes from Policy.Rule.
func (r Rule) Keys() []crypto.PublicKey { return keysOf(r.everyone()) }

// Issuers returns every issuer of whom the same holds. A caller who has no
// Verifier for identities cannot enforce such a rule, and should say so rather
// than report the artifact as unsigned.
func (r Rule) Issuers() []string { return issuersOf(r.everyone()) }

// Keys returns every key that the policy names, in whatever rule.
func (p Policy) Keys() []crypto.PublicKey { return keysOf(p.everyone()) }

// Issuers returns every issuer that the policy names, in whatever rule.
func (p Policy) Issuers() []string { return issuersOf(p.everyone()) }

func (p Policy) everyone() []Principal {
	var all []Principal
	for _, r := range p.Rules {
		all = append(all, r.everyone()...)
	}
	for _, d := range p.Denials {
		all = append(all, d.Signers...)
	}
	return all
}

func keysOf(list []Principal) []crypto.PublicKey {
	var keys []crypto.PublicKey
	var seen []string
	for _, s := range list {
		if a, err := s.party(); err == nil && a.pub != nil && !slices.Contains(seen, a.keyID) {
			seen = append(seen, a.keyID)
			keys = append(keys, a.pub)
		}
	}
	return keys
}

func issuersOf(list []Principal) []string {
	var issuers []string
	for _, s := range list {
		if s.Issuer != "" && !slices.Contains(issuers, s.Issuer) {
			issuers = append(issuers, s.Issuer)
		}
	}
	return issuers
}

// signers lists the signers of all requirements, each once.
func (r Rule) signers() []Principal {
	var all []Principal
	for _, q := range r.Require {
		for _, s := range q.Signers {
			if !slices.Contains(all, s) {
				all = append(all, s)
			}
		}
	}
	return all
}
