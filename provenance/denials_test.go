// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"errors"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

func TestDenialListsSurviveARoundTrip(t *testing.T) {
	l := denialList()
	l.Entries = append(l.Entries, provenance.Denial{Key: strings.Repeat("ab", 32), Since: now, Reason: "stolen"},
		provenance.Denial{Issuer: issuer, Subject: workflow, Since: now, Until: now.Add(time.Hour)})
	st := must[provenance.Statement](t)(provenance.NewDenials(l))
	if got := must[provenance.DenialList](t)(provenance.ParseDenials(st)); !reflect.DeepEqual(got, l) {
		t.Errorf("got %+v\nwant %+v", got, l)
	}
}

// statementVectors are predicates with one defect each, in the form of
// policyVectors.
func statementVectors(t testing.TB, kind string, least int) map[string][2]string {
	t.Helper()
	paths := must[[]string](t)(filepath.Glob("testdata/" + kind + "/*.txt"))
	if len(paths) < least {
		t.Fatalf("%d vectors in testdata/%s", len(paths), kind)
	}
	return readVectors(t, paths)
}

func TestDenialListVectors(t *testing.T) {
	for name, v := range statementVectors(t, "denials", 20) {
		l, err := provenance.ParseDenials(provenance.Statement{PredicateType: provenance.PredicateDenials, Predicate: []byte(v[1])})
		checkVector(t, name, v[0], err)
		if err == nil {
			if again := must[provenance.Statement](t)(provenance.NewDenials(l)); string(again.Predicate) != strings.TrimSpace(v[1]) {
				t.Errorf("%s: written again it reads %s", name, again.Predicate)
			}
		}
	}
	over := denialList()
	over.Entries = make([]provenance.Denial, 1<<16+1)
	if _, err := provenance.NewDenials(over); !errors.Is(err, provenance.ErrFormat) {
		t.Errorf("over the limit: got %v", err)
	}
}

func TestPlaintextVectors(t *testing.T) {
	for name, v := range statementVectors(t, "plaintext", 7) {
		p, err := provenance.ParsePlaintext(provenance.Statement{PredicateType: provenance.PredicatePlaintext, Predicate: []byte(v[1])})
		checkVector(t, name, v[0], err)
		if err == nil {
			if again := must[provenance.Statement](t)(provenance.NewPlaintext(p)); string(again.Predicate) != strings.TrimSpace(v[1]) {
				t.Errorf("%s: written again it reads %s", name, again.Predicate)
			}
		}
	}
}

func checkVector(t testing.TB, name, expect string, err error) {
	t.Helper()
	switch {
	case expect == "valid" && err != nil:
		t.Errorf("%s: %v", name, err)
	case expect != "valid" && (!errors.Is(err, provenance.ErrFormat) || !strings.Contains(err.Error(), expect)):
		t.Errorf("%s: got %v, want ErrFormat with %q", name, err, expect)
	}
}

// TestDenialsSpareWhatWasSeenInTime: a key that was stolen on Tuesday signed
// well on Monday, where somebody trusted saw it.
func TestDenialsSpareWhatWasSeenInTime(t *testing.T) {
	for name, d := range map[string]provenance.Denial{
		"since after it signed":  {Issuer: issuer, Subject: workflow, Since: now.Add(-time.Minute)},
		"until before it signed": {Issuer: issuer, Subject: workflow, Until: now.Add(-2 * time.Hour)},
		"another subject":        {Issuer: issuer, Subject: workflow + "2"},
		"another issuer":         {Issuer: issuer + "/", Subject: workflow},
		"an older release":       {Name: "team/llama", From: 0, To: 11},
		"a newer release":        {Name: "team/llama", From: 13, To: 99},
		"another builder":        {Builder: builder + "/evil"},
	} {
		s := wideScene(t)
		s.deny(t, d)
		if judgeBase(t, s); !s.policy.Evaluate(s.in).Allowed {
			t.Errorf("%s: %s", name, s.policy.Evaluate(s.in))
		}
	}
	s := wideScene(t)
	s.deny(t, provenance.Denial{Key: keyIDOf(t, s.in.Statements[0].Signer), Since: now.Add(-time.Minute)})
	for i := range s.in.Statements {
		s.in.Statements[i].Times = []time.Time{now.Add(-time.Hour)}
	}
	if judgeBase(t, s); !s.policy.Evaluate(s.in).Allowed {
		t.Errorf("a key whose signatures were stamped in time: %s", s.policy.Evaluate(s.in))
	}
	// A later stamp beside the first says nothing, and cannot be used to deny.
	s.in.Statements[0].Times = append(s.in.Statements[0].Times, now)
	if r := s.policy.Evaluate(s.in); !r.Allowed {
		t.Errorf("stamped again: %s", r)
	}
}

// TestDenialListsOfTheNewestSequenceCount: a list can take an entry back, and
// nobody can bring it back in by showing the older list.
func TestDenialListsOfTheNewestSequenceCount(t *testing.T) {
	s := wideScene(t)
	security := s.in.Denials[0].Signer
	older := listed(t, security, func(l *provenance.DenialList) {
		l.Sequence, l.Entries = 6, []provenance.Denial{{Digest: manifest}}
	})
	s.in.Denials = append(s.in.Denials, older)
	if judgeBase(t, s); !s.policy.Evaluate(s.in).Allowed {
		t.Errorf("an entry taken back: %s", s.policy.Evaluate(s.in))
	}
	same := listed(t, security, func(l *provenance.DenialList) { l.Entries = []provenance.Denial{{Digest: manifest}} })
	s.in.Denials = []provenance.Verified{same, s.in.Denials[0]}
	if got := labels(s.policy.Evaluate(s.in)); got != "denied.digest" {
		t.Errorf("two lists of one sequence: refused by %q", got)
	}
	s.in.Denials[1] = listed(t, keyPrincipal(t, "stranger"), func(l *provenance.DenialList) { l.Sequence, l.Entries = 99, nil })
	if got := labels(s.policy.Evaluate(s.in)); got != "denied.digest" {
		t.Errorf("a stranger's newer list: refused by %q", got)
	}
}

// TestFault44ClockMovedByTwoDays, either way: what ended stays ended, and where
// the evidence shows that the clock lags, the report says so.
func TestFault44ClockMovedByTwoDays(t *testing.T) {
	for shift, want := range map[time.Duration]string{
		48 * time.Hour:  "denials.current plaintext.validity require[0].validity tag.validity",
		-48 * time.Hour: "denials.current plaintext.validity require[0].validity require[1].time tag.validity",
	} {
		s := wideScene(t)
		s.in.Now = now.Add(shift)
		r := s.policy.Evaluate(s.in)
		if got := labels(r); got != want {
			t.Errorf("moved by %s: refused by %q, want %q", shift, got, want)
		}
		if !strings.Contains(r.String(), "a correct clock") {
			t.Errorf("moved by %s: the report does not speak of the clock:\n%s", shift, r)
		}
	}
	// A release that ended a day ago is not revived by a clock of the day before
	// where a signature was seen since.
	s := fullScene(t)
	s.in.Now = now.Add(-48 * time.Hour)
	if r := s.policy.Evaluate(s.in); r.Allowed || !strings.Contains(r.String(), "ahead of the clock") {
		t.Errorf("got %s", r)
	}
}

func TestK28MoreEvidenceNeverRefusesAnythingInTheWideScene(t *testing.T) {
	base := wideScene(t)
	for _, miss := range nearMisses {
		in := base.in
		in.Statements = append(miss.of(t).in.Statements, base.in.Statements...)
		if r := base.policy.Evaluate(in); !r.Allowed {
			t.Errorf("with the statements of %q: %s", miss.name, r)
		}
	}
}

// TestK29AReencryptedModelIsFoundByItsPlaintext: the manifest, the index and the
// release are all new.
func TestK29AReencryptedModelIsFoundByItsPlaintext(t *testing.T) {
	s := wideScene(t)
	s.in.Manifest, s.in.IndexDigest = digest.FromString("again"), digest.FromString("index again")
	for i := range s.in.Statements {
		s.in.Statements[i].Subjects = []digest.Digest{s.in.Manifest}
	}
	s.in.Statements[0].Statement = releaseStatement(t, func(r *provenance.Release) { r.Sequence, r.IndexDigest = 99, s.in.IndexDigest })
	if r := s.policy.Evaluate(s.in); !r.Allowed {
		t.Fatal(r)
	}
	s.deny(t, provenance.Denial{Plaintext: root})
	judgeBase(t, s)
	if got := labels(s.policy.Evaluate(s.in)); got != "plaintext.denied.plaintext" {
		t.Errorf("refused by %q", got)
	}
}
