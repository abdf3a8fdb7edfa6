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
	"time"
)

// Principal is somebody who signs: a key, or an identity that an issuer vouches
// for. In a policy every member that is set must match exactly. The one pattern
// there is stands for a ref: a Subject may end in @refs/tags/* or @refs/heads/*,
// a SourceRef may be refs/tags/* or refs/heads/*.
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
	// RunnerEnvironment is who owns the machine that it ran on, as in
	// github-hosted. Unlike the members above a workflow may do without.
	RunnerEnvironment string
	// NotBefore and NotAfter bound when a signature by the principal counts, in a
	// policy. Zero: no bound.
	NotBefore, NotAfter time.Time
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
	identity := p.Issuer != "" || p.Subject != "" || p.source() != [5]string{}
	switch {
	case len(p.Name) > maxName || !printable(p.Name):
		return fmt.Errorf("name is not 1 to %d printable bytes", maxName)
	case p.Key == "" && !identity:
		return errors.New("names nobody: want a key, or an issuer and a subject")
	case !p.NotBefore.IsZero() && !p.NotAfter.IsZero() && !p.NotBefore.Before(p.NotAfter):
		return errors.New("notAfter must be later than notBefore")
	case p.Key != "" && identity:
		return errors.New("has both a key and an identity: make it two principals")
	case p.Key != "":
		return nil
	case p.Issuer == "" || p.Subject == "":
		return errors.New("an identity needs both an issuer and a subject")
	}
	for _, s := range []string{p.Issuer, p.subjectFloor(), p.SourceRepository, p.SourceOwnerID, refFloor(p.SourceRef), p.Trigger, p.RunnerEnvironment} {
		if !printable(s) || strings.Contains(s, "*") {
			return fmt.Errorf("%q: want an exact value; only a ref has a pattern, refs/tags/* or refs/heads/*", clip(s))
		}
	}
	if strings.Trim(p.SourceOwnerID, "0123456789") != "" {
		return fmt.Errorf("sourceOwnerId %q is not numeric", clip(p.SourceOwnerID))
	}
	if p.isWorkflow() {
		for i, member := range workflowMembers {
			if p.source()[i] == "" {
				return fmt.Errorf("subject is a workflow, which others may call: add %s", member)
			}
		}
	}
	return nil
}

var workflowMembers = [4]string{"sourceRepository", "sourceOwnerId", "sourceRef", "trigger"}

func (p Principal) source() [5]string {
	return [5]string{p.SourceRepository, p.SourceOwnerID, p.SourceRef, p.Trigger, p.RunnerEnvironment}
}

// refMark is where the ref of a workflow's subject begins.
const refMark = "@refs/"

// refFloor is a ref without the pattern that it may end in. The prefix that is
// left ends in a slash and names one kind of ref.
func refFloor(ref string) string {
	if ref == "refs/tags/*" || ref == "refs/heads/*" {
		return strings.TrimSuffix(ref, "*")
	}
	return ref
}

// subjectFloor is refFloor for the ref at the end of the subject.
func (p Principal) subjectFloor() string {
	if i := strings.Index(p.Subject, refMark); i >= 0 {
		return p.Subject[:i+1] + refFloor(p.Subject[i+1:])
	}
	return p.Subject
}

// matchesRef compares a value that may end in the pattern of a ref. Policies
// hold no other value with a star in it.
func matchesRef(want, got string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return len(got) > len(prefix) && strings.HasPrefix(got, prefix)
	}
	return got == want
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
	if signer.Key != "" || signer.Issuer != a.Issuer || !matchesRef(a.Subject, signer.Subject) {
		return false
	}
	theirs := signer.source()
	for i, want := range a.source() {
		if want != "" && !matchesRef(want, theirs[i]) {
			return false
		}
	}
	return true
}

// Signed returns nil where p, as a policy names somebody, is who a Verifier
// proved to have signed, at a time for which p counts: the oldest that was
// proven, else now. A p that a policy would refuse is nobody.
func (p Principal) Signed(v *Verified, now time.Time) error {
	if err := p.check(); err != nil {
		return policyErrorf("principal %s: %w", p, err)
	}
	wanted, err := p.party()
	if err != nil {
		return policyErrorf("principal %s: %w", p, err)
	}
	signer, err := v.Signer.party()
	if err != nil {
		return err
	}
	if !wanted.matches(signer) {
		return fmt.Errorf("signed by %s, not by %s", v.Signer, p)
	}
	if reason := p.within(v.Times, now); reason != "" {
		return fmt.Errorf("signed by %s, who does not count: %s", p, reason)
	}
	return nil
}

// equal reports whether two principals of a policy mean the same.
func (a party) equal(b party) bool {
	return a.keyID == b.keyID && a.Issuer == b.Issuer && a.Subject == b.Subject && a.source() == b.source() &&
		a.NotBefore.Equal(b.NotBefore) && a.NotAfter.Equal(b.NotAfter)
}

// overlaps reports whether one signer could be both, at whatever time.
func (a party) overlaps(b party) bool {
	if a.keyID != b.keyID || a.Issuer != b.Issuer || !meet(a.Subject, b.Subject) {
		return false
	}
	theirs := b.source()
	for i, s := range a.source() {
		if s != "" && theirs[i] != "" && !meet(s, theirs[i]) {
			return false
		}
	}
	return true
}

// meet reports whether a value could match both.
func meet(a, b string) bool {
	return a == b || matchesRef(a, b) || matchesRef(b, a)
}

// kin is what principals that overlap have in common.
func (a party) kin() [3]string {
	subject, _, _ := strings.Cut(a.Subject, refMark)
	return [3]string{a.keyID, a.Issuer, subject}
}

// within says why a signature does not count at the time it was made, or
// nothing. The oldest trusted time is when it was; without one it is judged as
// of now (RULES K26).
func (p Principal) within(times []time.Time, now time.Time) string {
	at, when := now, "now"
	if len(times) > 0 {
		at = oldest(times)
		when = "signed " + at.UTC().Format(time.RFC3339)
	}
	switch {
	case !p.NotBefore.IsZero() && at.Before(p.NotBefore):
		return when + ", before " + p.NotBefore.UTC().Format(time.RFC3339)
	case !p.NotAfter.IsZero() && !at.Before(p.NotAfter):
		return when + ", not before " + p.NotAfter.UTC().Format(time.RFC3339)
	}
	return ""
}

// defaultName is stable, so that documents made from the same policy are equal.
func (a party) defaultName() string {
	if a.keyID != "" {
		return "key-" + a.keyID[:16]
	}
	source := a.source()
	sum := sha256.Sum256([]byte(strings.Join(append([]string{a.Issuer, a.Subject}, source[:]...), "\x00")))
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
