// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// DenialSource is a denial list that a policy heeds (POLICY.md §7). Without a
// list in force the policy refuses everything.
type DenialSource struct {
	// Name is that of the list.
	Name string
	// Signers sign it, at least one. None of them may sign anything else that the
	// policy asks for.
	Signers []Principal
	// Source is where the list is fetched from, as host/path:tag. Empty: the
	// caller gives it.
	Source string
	// MinSequence is the least sequence that the list may have. Default: 0, any.
	MinSequence uint64
	// MaxAge bounds how long ago it was issued. Default: until it expires.
	MaxAge time.Duration
}

func (c *compiled) denials(sources []DenialSource) error {
	seen := make(map[string]bool)
	for i, s := range sources {
		if err := c.denialSource(s); err != nil {
			return fmt.Errorf("denial list %d: %w", i, err)
		}
		if seen[s.Name] {
			return fmt.Errorf("denial list %q stands twice", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

func (c *compiled) denialSource(s DenialSource) error {
	switch {
	case s.Name == "" || !printable(s.Name):
		return fmt.Errorf("name %q: want 1 to %d printable bytes", clip(s.Name), maxName)
	case len(s.Signers) == 0:
		return errors.New("no signers: name at least one principal")
	case s.MinSequence > maxSequence:
		return fmt.Errorf("minSequence %d can never be met: sequences end at %d", s.MinSequence, uint64(maxSequence))
	case s.MaxAge < 0:
		return fmt.Errorf("maxAge %s: want a positive duration", s.MaxAge)
	}
	if s.Source != "" {
		name, tag, ok := cutTag(s.Source)
		if !ok || !isRepository(name) || !tagForm.MatchString(tag) {
			return fmt.Errorf("source %q: want host/path:tag", clip(s.Source))
		}
	}
	return c.signers(s.Signers)
}

// cutTag splits host:port/path:tag.
func cutTag(reference string) (name, tag string, ok bool) {
	i := strings.LastIndexByte(reference, ':')
	if i < strings.LastIndexByte(reference, '/') {
		return reference, "", false
	}
	return reference[:max(i, 0)], reference[i+1:], i > 0
}

// denialsInForce are the lists that an evaluation heeds, made fit for look-ups.
type denialsInForce struct {
	digests, plaintexts map[digest.Digest]Denial
	builders            map[string]Denial
	keys                map[string][]Denial
	identities          map[[2]string][]Denial
	names               map[string][]Denial
}

func newDenialsInForce() *denialsInForce {
	return &denialsInForce{digests: map[digest.Digest]Denial{}, plaintexts: map[digest.Digest]Denial{}, builders: map[string]Denial{},
		keys: map[string][]Denial{}, identities: map[[2]string][]Denial{}, names: map[string][]Denial{}}
}

// heed finds for every source the newest list that its signers signed, and says
// of which there is none in force, or nothing. An older list never stands in for
// a newer one that has expired.
func (e *evaluation) heed() string {
	for _, s := range e.policy.Denials {
		var newest []DenialList
		var reasons []string
		for _, v := range e.in.Denials {
			l, err := e.admitList(s, v)
			if err != nil {
				reasons = append(reasons, err.Error())
				continue
			}
			// Two lists of one sequence are both heeded: which one is meant is not
			// for the reader to guess.
			if len(newest) > 0 && newest[0].Sequence < l.Sequence {
				newest = nil
			}
			if len(newest) == 0 || newest[0].Sequence == l.Sequence {
				newest = append(newest, l)
			}
		}
		if len(newest) == 0 {
			return fmt.Sprintf("no list %q by its signers%s", s.Name, because(reasons))
		}
		for _, l := range newest {
			if reason := e.stale(s, l); reason != "" {
				return fmt.Sprintf("list %q, sequence %d: %s", s.Name, l.Sequence, reason)
			}
			e.denied.add(l)
		}
	}
	return ""
}

// admitList holds one statement to the source: nothing but the right signer
// makes a list that speaks for it. Who signed comes first, since lists are large
// and anybody can attach one.
func (e *evaluation) admitList(s DenialSource, v Verified) (DenialList, error) {
	signer, err := v.Signer.party()
	if err != nil {
		return DenialList{}, err
	}
	p, ok := signer.among(s.Signers)
	if !ok {
		return DenialList{}, fmt.Errorf("signed by %s", v.Signer)
	}
	if reason := p.within(v.Times, e.in.Now); reason != "" {
		return DenialList{}, errors.New(reason)
	}
	l, err := ParseDenials(v.Statement)
	switch {
	case err != nil:
		return DenialList{}, err
	case l.Name != s.Name:
		return DenialList{}, fmt.Errorf("named %q", l.Name)
	case len(v.Subjects) != 1 || v.Subjects[0] != l.Subject():
		return DenialList{}, errors.New("about something else than its name")
	}
	return l, nil
}

func (e *evaluation) stale(s DenialSource, l DenialList) string {
	switch {
	case l.Sequence < s.MinSequence:
		return fmt.Sprintf("want at least %d", s.MinSequence)
	case !e.in.Now.Before(l.Expires):
		return "expired " + l.Expires.Format(time.RFC3339)
	case l.Issued.Sub(e.in.Now) > maxClockSkew:
		return "issued " + l.Issued.Format(time.RFC3339) + ", which is ahead of the clock"
	case s.MaxAge > 0 && e.in.Now.Sub(l.Issued) > s.MaxAge:
		return "issued " + l.Issued.Format(time.RFC3339) + ", more than " + s.MaxAge.String() + " ago"
	}
	return ""
}

func (f *denialsInForce) add(l DenialList) {
	for _, d := range l.Entries {
		switch {
		case d.Digest != "":
			f.digests[d.Digest] = d
		case d.Plaintext != "":
			f.plaintexts[d.Plaintext] = d
		case d.Builder != "":
			f.builders[d.Builder] = d
		case d.Key != "":
			f.keys[d.Key] = append(f.keys[d.Key], d)
		case d.Name != "":
			f.names[d.Name] = append(f.names[d.Name], d)
		default:
			id := [2]string{d.Issuer, d.Subject}
			f.identities[id] = append(f.identities[id], d)
		}
	}
}

// signer says why a signature by this party does not count any more, or nothing.
func (f *denialsInForce) signer(a party, times []time.Time) string {
	entries := f.keys[a.keyID]
	if a.keyID == "" {
		entries = f.identities[[2]string{a.Issuer, a.Subject}]
	}
	for _, d := range entries {
		if len(times) == 0 || (d.Since.IsZero() || !oldest(times).Before(d.Since)) && (d.Until.IsZero() || oldest(times).Before(d.Until)) {
			return "its signer is denied" + d.why()
		}
	}
	return ""
}

func (f *denialsInForce) release(r Release) string {
	for _, d := range f.names[r.Name] {
		if d.From <= r.Sequence && r.Sequence <= d.To {
			return fmt.Sprintf("releases %d to %d of %q are denied%s", d.From, d.To, d.Name, d.why())
		}
	}
	return ""
}

func (f *denialsInForce) plaintext(p Plaintext) string {
	for _, x := range []digest.Digest{p.Root, p.Manifest} {
		if d, ok := f.plaintexts[x]; ok {
			return "plaintext " + string(x) + " is denied" + d.why()
		}
	}
	return ""
}

func (f *denialsInForce) material(deps []ResourceDescriptor) string {
	for _, dep := range deps {
		if d, ok := f.digests[digest.NewDigestFromEncoded(digest.SHA256, dep.Digest["sha256"])]; ok {
			return "made from " + string(d.Digest) + ", which is denied" + d.why()
		}
	}
	return ""
}

func (d Denial) why() string {
	if d.Reason == "" {
		return ""
	}
	return ": " + d.Reason
}

// oldest is the earliest time at which a trusted party saw a signature. Anybody
// can have an old signature stamped again, so later ones say nothing.
func oldest(times []time.Time) time.Time {
	return slices.MinFunc(times, time.Time.Compare)
}

func because(reasons []string) string {
	if len(reasons) == 0 {
		return ""
	}
	slices.Sort(reasons)
	reasons = slices.Compact(reasons)
	return ": " + strings.Join(reasons[:min(len(reasons), tallyExamples)], "; ")
}
