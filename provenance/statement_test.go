// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/provenance"
)

func subject(d string) string { return `{"digest":{"sha256":"` + d + `"}}` }

func statementText(subjects, rest string) string {
	return `{"_type":"https://in-toto.io/Statement/v1","subject":[` + subjects + `],"predicateType":"https://example.com/p"` + rest + `}`
}

func TestStatementHasOneEncoding(t *testing.T) {
	s := provenance.Statement{PredicateType: "https://example.com/p", Predicate: []byte(" { \"b\" : 1,\n \"a\" : [ true ] } ")}
	got := string(must[[]byte](t)(s.Encode(manifest)))
	want := `{"_type":"https://in-toto.io/Statement/v1","subject":[{"digest":{"sha256":"` + manifest.Encoded() + `"}}],"predicateType":"https://example.com/p","predicate":{"b":1,"a":[true]}}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	back, subjects, err := provenance.DecodeStatement([]byte(got), nil)
	if err != nil || back.PredicateType != s.PredicateType || len(subjects) != 1 || subjects[0] != manifest {
		t.Errorf("got %+v, %v, %v", back, subjects, err)
	}
}

func TestStatementEncodeRefuses(t *testing.T) {
	good := cosignStatement()
	for name, tt := range map[string]struct {
		s provenance.Statement
		d digest.Digest
	}{
		"another algorithm":   {good, digest.SHA512.FromString("x")},
		"an upper-case digit": {good, digest.Digest(strings.ToUpper(string(manifest)))},
		"no digest":           {good, ""},
		"no predicate type":   {provenance.Statement{Predicate: []byte(`{}`)}, manifest},
		"a list":              {provenance.Statement{PredicateType: "p", Predicate: []byte(`[]`)}, manifest},
		"null":                {provenance.Statement{PredicateType: "p", Predicate: []byte(`null`)}, manifest},
		"a repeated member":   {provenance.Statement{PredicateType: "p", Predicate: []byte(`{"a":1,"a":2}`)}, manifest},
		"too many bytes":      {provenance.Statement{PredicateType: "p", Predicate: []byte(`{"a":"` + strings.Repeat("x", provenance.MaxStatement) + `"}`)}, manifest},
	} {
		if _, err := tt.s.Encode(tt.d); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestK39ExactlyOneSubject: and its sha256, and no digest that nobody compares.
func TestK39ExactlyOneSubject(t *testing.T) {
	d := manifest.Encoded()
	for name, tt := range map[string]struct {
		in  string
		max int
		ok  bool
	}{
		"one":                        {statementText(subject(d), ""), 0, true},
		"one with a name":            {statementText(`{"name":"x","digest":{"sha256":"`+d+`","gitCommit":"ab"}}`, ""), 0, true},
		"members unknown to in-toto": {statementText(subject(d), `,"later":1,"predicate":{"x":1}`), 0, true},
		"two":                        {statementText(subject(d)+","+subject(d), ""), 0, false},
		"two, allowed by the caller": {statementText(subject(d)+","+subject(d), ""), 2, true},
		"three where two may be":     {statementText(subject(d)+","+subject(d)+","+subject(d), ""), 2, false},
		"none":                       {statementText("", ""), 0, false},
		"a second algorithm":         {statementText(`{"digest":{"sha256":"`+d+`","sha512":"`+d+d+`"}}`, ""), 0, false},
		"another algorithm":          {statementText(`{"digest":{"sha512":"`+d+d+`"}}`, ""), 0, false},
		"an upper-case digest":       {statementText(subject(strings.ToUpper(d)), ""), 0, false},
		"a short digest":             {statementText(subject(d[:62]), ""), 0, false},
		"no digest":                  {statementText(`{"name":"x"}`, ""), 0, false},
		"a repeated digest":          {statementText(`{"digest":{"sha256":"`+d+`","sha256":"`+d+`"}}`, ""), 0, false},
		"a digest in another case":   {statementText(`{"Digest":{"sha256":"`+d+`"}}`, ""), 0, false},
		"an object for a list":       {`{"_type":"https://in-toto.io/Statement/v1","subject":{},"predicateType":"p"}`, 0, false},
		"no subject":                 {`{"_type":"https://in-toto.io/Statement/v1","predicateType":"p"}`, 0, false},
		"the type of version 0.1":    {strings.Replace(statementText(subject(d), ""), "Statement/v1", "Statement/v0.1", 1), 0, true},
		"the type of no version":     {strings.Replace(statementText(subject(d), ""), "Statement/v1", "Statement/v2", 1), 0, false},
	} {
		_, subjects, err := provenance.DecodeStatement([]byte(tt.in), &provenance.StatementOptions{MaxSubjects: tt.max})
		if (err == nil) != tt.ok || err != nil && !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, %v", name, subjects, err)
		}
	}
}

// TestFloodOfSubjectsIsRefused by bytes, and by number whatever the caller may
// ask for (FAULTS 35).
func TestFloodOfSubjectsIsRefused(t *testing.T) {
	one := subject(manifest.Encoded())
	for _, n := range []int{1024, 30_000, 100_000} {
		in := []byte(statementText(strings.Repeat(one+",", n)+one, ""))
		if _, subjects, err := provenance.DecodeStatement(in, &provenance.StatementOptions{MaxSubjects: 1 << 30}); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%d subjects: got %d and %v, want ErrFormat", n+1, len(subjects), err)
		}
	}
}

func TestReleaseRoundTrips(t *testing.T) {
	for _, change := range []func(*provenance.Release){
		func(*provenance.Release) {},
		func(r *provenance.Release) { r.Tags, r.Expires, r.Sequence = nil, time.Time{}, 0 },
		func(r *provenance.Release) { r.Sequence = provenance.MaxSequence },
		func(r *provenance.Release) { r.Expires = r.Expires.In(time.FixedZone("x", 3600)) },
	} {
		want := release()
		change(&want)
		s := must[provenance.Statement](t)(provenance.NewRelease(want))
		got, err := provenance.ParseRelease(s)
		if err != nil || got.Name != want.Name || len(got.Tags) != len(want.Tags) || got.Sequence != want.Sequence ||
			!got.Expires.Equal(want.Expires) || got.Profile != want.Profile || got.IndexDigest != want.IndexDigest {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		again := must[provenance.Statement](t)(provenance.NewRelease(got))
		if string(again.Predicate) != string(s.Predicate) {
			t.Errorf("two encodings of one release: %s and %s", s.Predicate, again.Predicate)
		}
	}
}

func TestReleaseRefuses(t *testing.T) {
	valid := string(must[provenance.Statement](t)(provenance.NewRelease(release())).Predicate)
	for name, edit := range map[string][2]string{
		"an unknown member":       {`"sequence"`, `"later":1,"sequence"`},
		"a member in other case":  {`"sequence"`, `"Sequence"`},
		"a repeated member":       {`"sequence":12`, `"sequence":12,"sequence":13`},
		"no tags":                 {`"tags":["v3","latest"],`, ``},
		"null tags":               {`["v3","latest"]`, `null`},
		"a tag that is none":      {`"v3"`, `"v/3"`},
		"no sequence":             {`"sequence":12,`, ``},
		"a negative sequence":     {`12`, `-12`},
		"a fractional sequence":   {`"sequence":12`, `"sequence":12.5`},
		"a sequence over 2^53":    {`"sequence":12`, `"sequence":9007199254740992`},
		"no name":                 {`"name":"team/llama"`, `"name":""`},
		"a name with a newline":   {`team/llama`, `team\nllama`},
		"an empty expiry":         {`2026-11-22T13:00:00Z`, ``},
		"a null expiry":           {`"2026-11-22T13:00:00Z"`, `null`},
		"the zero expiry":         {`2026-11-22T13:00:00Z`, `0001-01-01T00:00:00Z`},
		"a date for an expiry":    {`2026-11-22T13:00:00Z`, `2026-11-22`},
		"another profile":         {`encrypted`, `Encrypted`},
		"no index":                {index.String(), ``},
		"an index by its sha512":  {index.String(), `sha512:` + index.Encoded() + index.Encoded()},
		"the wrong type of a tag": {`"v3"`, `3`},
	} {
		in := strings.Replace(valid, edit[0], edit[1], 1)
		if in == valid {
			t.Fatalf("%s: the edit did nothing to %s", name, valid)
		}
		if r, err := provenance.ParseRelease(provenance.Statement{PredicateType: provenance.PredicateRelease, Predicate: []byte(in)}); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %+v, %v, want ErrFormat", name, r, err)
		}
	}
	if _, err := provenance.ParseRelease(cosignStatement()); err == nil {
		t.Error("a cosign signature was read as a release")
	}
}

func TestGrantStatementNamesOneDocument(t *testing.T) {
	document := digest.FromString("grant")
	s := must[provenance.Statement](t)(provenance.NewGrant(document))
	if got, want := string(s.Predicate), `{"grant":{"sha256":"`+document.Encoded()+`"}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := provenance.ParseGrant(s); err != nil || got != document {
		t.Errorf("got %s, %v", got, err)
	}
	for _, in := range []string{`{}`, `{"grant":{}}`, `{"grant":{"sha256":"ab"}}`, `{"grant":{"sha256":"` + document.Encoded() + `"},"x":1}`, `{"grant":null}`} {
		if _, err := provenance.ParseGrant(provenance.Statement{PredicateType: provenance.PredicateGrant, Predicate: []byte(in)}); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", in, err)
		}
	}
}

// TestK14OnlyGrantSignersVouchForGrants, and only for the bytes and the manifest
// at hand, while their signatures count.
func TestK14OnlyGrantSignersVouchForGrants(t *testing.T) {
	s := plainScene(t)
	signer, document := s.in.Statements[0].Signer, digest.FromString("grant")
	rule := must[provenance.GrantRule](t)(s.policy.GrantRule(s.in))
	good := verified(signer, must[provenance.Statement](t)(provenance.NewGrant(document)))
	if err := rule.Verify(good, document); err != nil {
		t.Error(err)
	}
	elsewhere := s.in
	elsewhere.Manifest = digest.FromString("other")
	outsider := good
	outsider.Signer = keyPrincipal(t, "signer")
	twice := good
	twice.Subjects = []digest.Digest{manifest, manifest}
	other := good
	other.Statement = cosignStatement()
	ended := s.policy
	signer.NotAfter = now
	ended.Rules = []provenance.Rule{{Repositories: []string{"*"}, Require: s.policy.Rules[0].Require, GrantSigners: []provenance.Principal{signer}}}
	ended.Rules[0].Require = []provenance.Requirement{{Signers: []provenance.Principal{keyPrincipal(t, "publisher")}}}
	for name, err := range map[string]error{
		"another manifest": must[provenance.GrantRule](t)(s.policy.GrantRule(elsewhere)).Verify(good, document),
		"another document": rule.Verify(good, digest.FromString("other")),
		"another signer":   rule.Verify(outsider, document),
		"two subjects":     rule.Verify(twice, document),
		"another type":     rule.Verify(other, document),
		"no rule":          provenance.GrantRule{}.Verify(good, document),
		"no signer":        rule.Verify(provenance.Verified{Statement: good.Statement, Subjects: good.Subjects}, document),
		"after his time":   must[provenance.GrantRule](t)(ended.GrantRule(s.in)).Verify(good, document),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestK29GrantsOfADeniedSignerCountForNothing, and none counts without the list.
func TestK29GrantsOfADeniedSignerCountForNothing(t *testing.T) {
	s := plainScene(t)
	signer, security, document := s.in.Statements[0].Signer, keyPrincipal(t, "security"), digest.FromString("grant")
	s.policy.Denials = []provenance.DenialSource{{Name: "acme", Signers: []provenance.Principal{security}}}
	if _, err := s.policy.GrantRule(s.in); !errors.Is(err, provenance.ErrPolicy) {
		t.Errorf("without a list in force: got %v, want ErrPolicy", err)
	}
	grant := verified(signer, must[provenance.Statement](t)(provenance.NewGrant(document)))
	for _, denied := range []provenance.Principal{keyPrincipal(t, "somebody"), signer} {
		pub := must[crypto.PublicKey](t)(provenance.ParsePublicKey([]byte(denied.Key)))
		list := provenance.DenialList{Name: "acme", Issued: now, Expires: now.Add(time.Hour), Entries: []provenance.Denial{{Key: must[string](t)(provenance.KeyID(pub))}}}
		v := verified(security, must[provenance.Statement](t)(provenance.NewDenials(list)))
		v.Subjects = []digest.Digest{list.Subject()}
		s.in.Denials = []provenance.Verified{v}
		rule := must[provenance.GrantRule](t)(s.policy.GrantRule(s.in))
		if err := rule.Verify(grant, document); (err != nil) != (denied == signer) {
			t.Errorf("%s is denied: got %v", denied, err)
		}
	}
}

func TestProvenanceOfEachBuildType(t *testing.T) {
	dep := func(role string) provenance.Dependency {
		return provenance.Dependency{Digest: digest.FromString(role), Role: role}
	}
	seed := int64(7)
	for name, tt := range map[string]struct {
		parameters provenance.Parameters
		roles      []string
		missing    []string // each alone makes the build incomplete
	}{
		provenance.BuildTypeTrain:    {provenance.Train{Source: source, Seed: &seed}, []string{"dataset", "code"}, []string{"dataset"}},
		provenance.BuildTypeFineTune: {provenance.FineTune{Method: "lora"}, []string{"base", "dataset"}, []string{"base", "dataset"}},
		provenance.BuildTypeQuantise: {provenance.Quantise{Scheme: "int8"}, []string{"base"}, []string{"base"}},
		provenance.BuildTypeMerge:    {provenance.Merge{Method: "ties", Weights: []float64{0.5, 0.5}}, []string{"base", "adapter"}, []string{"base", "adapter"}},
		provenance.BuildTypeConvert:  {provenance.Convert{From: "gguf"}, nil, nil},
	} {
		b := provenance.Build{Parameters: tt.parameters, Builder: builder, Invocation: "1", Started: now, Finished: now.Add(time.Hour)}
		for _, r := range tt.roles {
			b.Dependencies = append(b.Dependencies, dep(r))
		}
		s, err := provenance.NewProvenance(b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		p, err := provenance.ParseProvenance(s)
		if err != nil || p.BuildDefinition.BuildType != name || p.RunDetails.Builder.ID != builder || !p.RunDetails.Metadata.FinishedOn.Equal(b.Finished) {
			t.Errorf("%s: got %+v, %v", name, p, err)
		}
		for _, gone := range tt.missing {
			c := b
			c.Dependencies = nil
			for _, r := range tt.roles {
				if r != gone {
					c.Dependencies = append(c.Dependencies, dep(r))
				}
			}
			if _, err := provenance.NewProvenance(c); !errors.Is(err, provenance.ErrFormat) {
				t.Errorf("%s without %s: got %v, want ErrFormat", name, gone, err)
			}
		}
	}
}

func TestProvenanceRefuses(t *testing.T) {
	valid := string(slsaStatement(t, nil).Predicate)
	for name, edit := range map[string][2]string{
		"an unknown parameter":        {`"method":"lora"`, `"method":"lora","x":1`},
		"a parameter in another case": {`"method"`, `"Method"`},
		"a null parameter":            {`"source":"` + source + `"`, `"source":null`},
		"no method":                   {`"method":"lora"`, `"method":""`},
		"parameters of another type":  {`buildtypes/fine-tune/`, `buildtypes/quantise/`},
		"a list of parameters":        {`"externalParameters":{`, `"externalParameters":[],"x":{`},
		"no builder":                  {`"id":"` + builder + `"`, `"id":""`},
		"no build type":               {provenance.BuildTypeFineTune, ``},
		"a role that is none":         {`"role":"code"`, `"role":"anything"`},
		"a role that is no string":    {`"role":"code"`, `"role":["code"]`},
		"a dependency by its name":    {`"digest":{"sha256":"` + digest.FromString("base").Encoded() + `"}`, `"digest":{}`},
		"a dependency by its sha1":    {`"digest":{"sha256"`, `"digest":{"sha1"`},
		"a repeated member":           {`"builder":`, `"builder":{"id":"x"},"builder":`},
		"a member in another case":    {`"builder":`, `"Builder":`},
	} {
		in := strings.Replace(valid, edit[0], edit[1], 1)
		if in == valid {
			t.Fatalf("%s: the edit did nothing to %s", name, valid)
		}
		if _, err := provenance.ParseProvenance(provenance.Statement{PredicateType: provenance.PredicateSLSA, Predicate: []byte(in)}); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
	for name, change := range map[string]func(*provenance.Build){
		"no parameters":      func(b *provenance.Build) { b.Parameters = nil },
		"no builder":         func(b *provenance.Build) { b.Builder = "" },
		"no digest":          func(b *provenance.Build) { b.Dependencies[0].Digest = "" },
		"an unknown role":    func(b *provenance.Build) { b.Dependencies[0].Role = "x" },
		"parameters in part": func(b *provenance.Build) { b.Parameters = provenance.FineTune{} },
	} {
		b := build()
		change(&b)
		if _, err := provenance.NewProvenance(b); !errors.Is(err, provenance.ErrFormat) {
			t.Errorf("%s: got %v, want ErrFormat", name, err)
		}
	}
}

// TestProvenanceOfOtherBuildersIsRead with whatever they add to it.
func TestProvenanceOfOtherBuildersIsRead(t *testing.T) {
	in := `{"buildDefinition":{"buildType":"https://actions.github.io/buildtypes/workflow/v1","later":1,
		"externalParameters":{"workflow":{"ref":"refs/heads/main"}},"internalParameters":{"github":{"repository_id":"1"}},
		"resolvedDependencies":[{"uri":"git+https://github.com/acme/train@refs/heads/main","digest":{"gitCommit":"ab"},"annotations":{"x":[1]}}]},
		"runDetails":{"builder":{"id":"https://github.com/actions/runner/github-hosted"},"metadata":{"invocationId":"1"}}}`
	p, err := provenance.ParseProvenance(provenance.Statement{PredicateType: provenance.PredicateSLSA, Predicate: []byte(in)})
	if err != nil || len(p.BuildDefinition.ResolvedDependencies) != 1 {
		t.Errorf("got %+v, %v", p, err)
	}
	if b, err := json.Marshal(p); err != nil || !strings.Contains(string(b), `"repository_id":"1"`) {
		t.Errorf("got %s, %v", b, err)
	}
}

func ExampleNewRelease() {
	s, err := provenance.NewRelease(provenance.Release{
		Name: "team/llama", Tags: []string{"v3"}, Sequence: 7,
		Profile: provenance.ProfilePlain, IndexDigest: digest.FromString("index"),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(s.Predicate))
	// Output: {"name":"team/llama","tags":["v3"],"sequence":7,"profile":"plain","indexDigest":"sha256:1bc04b5291c26a46d918139138b992d2de976d6851d0893b0476b85bfbdfc6e6"}
}
