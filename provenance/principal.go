// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// Principal is somebody who signs: a key, or an identity that an issuer vouches
// for. In a policy every member that is set must match exactly; there are no
// patterns.
//
// The subject of a CI workflow (https://…@ref) names the workflow file and not
// who ran it: a reusable workflow can be called from any repository. So such a
// principal must also name the source: SourceRepository, SourceOwnerID (which,
// unlike a name, cannot be taken over), SourceRef and Trigger.
type Principal struct {
	// Name is what a policy calls the principal. Reports show it; it is never compared.
	Name string
	// Key is one public key as PEM. With it, no member below is set.
	Key string
	// Issuer is the URL of the identity provider.
	Issuer string
	// Subject is the email address or URI that the provider vouches for.
	Subject string
	// SourceRepository is the URI of the repository that the workflow ran for.
	SourceRepository string
	// SourceOwnerID is the provider's immutable, numeric id of the repository's owner.
	SourceOwnerID string
	// SourceRef is the ref that the workflow ran for, as in refs/heads/main.
	SourceRef string
	// Trigger is the event that started the workflow, as in push.
	Trigger string
}

// party is a principal made ready for comparison: PEM has many spellings for one
// key.
type party struct {
	Principal
	keyID string
	pub   crypto.PublicKey
}

func (p Principal) party() (party, error) {
	out := party{Principal: p}
	if p.Key == "" {
		return out, nil
	}
	pub, err := ParsePublicKey([]byte(p.Key))
	if err != nil {
		return party{}, err
	}
	out.pub = pub
	out.keyID, err = KeyID(pub)
	return out, err
}

// check refuses what could never match anybody, or could match the wrong one.
func (p Principal) check() error {
	identity := p.Issuer != "" || p.Subject != "" || p.source() != [4]string{}
	switch {
	case len(p.Name) > maxName || !printable(p.Name):
		return fmt.Errorf("name is not 1 to %d printable bytes", maxName)
	case p.Key == "" && !identity:
		return errors.New("names nobody: want a key, or an issuer and a subject")
	case p.Key != "" && identity:
		return errors.New("has both a key and an identity: make it two principals")
	case p.Key != "":
		return nil
	case p.Issuer == "" || p.Subject == "":
		return errors.New("an identity needs both an issuer and a subject")
	}
	for _, s := range append([]string{p.Issuer, p.Subject}, p.workflow()...) {
		if !printable(s) || strings.Contains(s, "*") {
			return fmt.Errorf("%q: want an exact value without patterns", clip(s))
		}
	}
	if strings.Trim(p.SourceOwnerID, "0123456789") != "" {
		return fmt.Errorf("sourceOwnerId %q is not numeric", clip(p.SourceOwnerID))
	}
	if p.isWorkflow() {
		for i, s := range p.workflow() {
			if s == "" {
				return fmt.Errorf("subject is a workflow, which others may call: add %s", workflowMembers[i])
			}
		}
	}
	return nil
}

var workflowMembers = [4]string{"sourceRepository", "sourceOwnerId", "sourceRef", "trigger"}

func (p Principal) source() [4]string {
	return [4]string{p.SourceRepository, p.SourceOwnerID, p.SourceRef, p.Trigger}
}

func (p Principal) workflow() []string {
	s := p.source()
	return s[:]
}

// isWorkflow recognises the subjects that Fulcio issues to GitHub, GitLab and
// those who follow them: the URI of a workflow file, and a ref.
func (p Principal) isWorkflow() bool {
	rest, ok := strings.CutPrefix(p.Subject, "https://")
	if !ok {
		return false
	}
	_, path, _ := strings.Cut(rest, "/")
	return strings.Contains(path, "@")
}

// matches reports whether signer, proven by a Verifier, is the party of a policy.
func (a party) matches(signer party) bool {
	if a.Key != "" {
		return signer.keyID == a.keyID
	}
	if signer.Key != "" || signer.Issuer != a.Issuer || signer.Subject != a.Subject {
		return false
	}
	theirs := signer.source()
	for i, want := range a.source() {
		if want != "" && theirs[i] != want {
			return false
		}
	}
	return true
}

// equal reports whether two principals of a policy mean the same.
func (a party) equal(b party) bool {
	return a.keyID == b.keyID && a.Issuer == b.Issuer && a.Subject == b.Subject && a.source() == b.source()
}

// overlaps reports whether one signer could be both.
func (a party) overlaps(b party) bool {
	if a.keyID != b.keyID || a.Issuer != b.Issuer || a.Subject != b.Subject {
		return false
	}
	theirs := b.source()
	for i, s := range a.source() {
		if s != "" && theirs[i] != "" && s != theirs[i] {
			return false
		}
	}
	return true
}

// defaultName is stable, so that documents made from the same policy are equal.
func (a party) defaultName() string {
	if a.keyID != "" {
		return "key-" + a.keyID[:16]
	}
	sum := sha256.Sum256([]byte(strings.Join(append([]string{a.Issuer, a.Subject}, a.workflow()...), "\x00")))
	return "identity-" + hex.EncodeToString(sum[:8])
}

// String describes the principal for people: its name, else who it is.
func (p Principal) String() string {
	switch {
	case p.Name != "":
		return p.Name
	case p.Key != "":
		a, err := p.party()
		if err != nil {
			return "an unreadable key"
		}
		return a.defaultName()
	}
	return clip(strings.ToValidUTF8(p.Subject, "")) + " (" + clip(strings.ToValidUTF8(p.Issuer, "")) + ")"
}
