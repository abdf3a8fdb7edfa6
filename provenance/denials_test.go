// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"errors"
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

func TestDenialListsSayOneThing(t *testing.T) {
	valid := string(must[provenance.Statement](t)(provenance.NewDenials(denialList())).Predicate)
	entry := func(e string) [2]string { return [2]string{`{"builder":"https://elsewhere.example.com"}`, e} }
	for name, edit := range map[string][2]string{
		"no sequence":             {`"sequence":7,`, ``},
		"no expiry":               {`"expires":"2026-11-23T12:00:00Z",`, ``},
		"expires before issued":   {`"expires":"2026-11-23T12:00:00Z"`, `"expires":"2026-11-20T12:00:00Z"`},
		"no name":                 {`"name":"acme"`, `"name":""`},
		"an unknown member":       {`"name":"acme"`, `"name":"acme","except":[]`},
		"no entries member":       {`"entries":`, `"entrees":`},
		"a number too large":      {`"sequence":7`, `"sequence":9007199254740992`},
		"an empty entry":          entry(`{}`),
		"an entry of two kinds":   entry(`{"builder":"a","key":"` + strings.Repeat("ab", 32) + `"}`),
		"an entry with no value":  entry(`{"builder":""}`),
		"an issuer alone":         entry(`{"issuer":"https://i.example.com"}`),
		"a name without a range":  entry(`{"name":"x"}`),
		"a range that is empty":   entry(`{"name":"x","from":2,"to":1}`),
		"a range without a name":  entry(`{"builder":"a","from":0,"to":1}`),
		"a builder since":         entry(`{"builder":"a","since":"2026-01-01T00:00:00Z"}`),
		"a key until":             entry(`{"key":"` + strings.Repeat("ab", 32) + `","until":"2026-01-01T00:00:00Z"}`),
		"until before since":      entry(`{"issuer":"i","subject":"s","since":"2026-01-02T00:00:00Z","until":"2026-01-01T00:00:00Z"}`),
		"a key that is no digest": entry(`{"key":"abcd"}`),
		"a digest of sha512":      entry(`{"digest":"sha512:` + strings.Repeat("ab", 64) + `"}`),
	} {
		if strings.Count(valid, edit[0]) != 1 {
			t.Fatalf("%s: %q is not in %s once", name, edit[0], valid)
		}
		predicate := strings.Replace(valid, edit[0], edit[1], 1)
		_, err := provenance.ParseDenials(provenance.Statement{PredicateType: provenance.PredicateDenials, Predicate: []byte(predicate)})
		if !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
	over := denialList()
	over.Entries = make([]provenance.Denial, 1<<16+1)
	if _, err := provenance.NewDenials(over); !errors.Is(err, provenance.ErrFormat) {
		t.Errorf("over the limit: got %v", err)
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
