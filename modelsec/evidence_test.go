// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// exported is a family under a denial list, whose tuned model was judged and
// exported.
func exported(t testing.TB, o *modelsec.ExportOptions) (*family, []byte, *provenance.Report) {
	t.Helper()
	f := newFamily(t)
	security := newParty(t)
	base := f.make(t, "team/base-model", provenance.Build{})
	f.make(t, "team/tuned", provenance.Build{Dependencies: []provenance.Dependency{input(provenance.RoleBase, "team/base-model", base)}})
	f.rules.Denials = []provenance.DenialSource{{Name: "acme", Signers: []provenance.Principal{security.principal(t)}, Source: denialSource}}
	list := provenance.DenialList{Name: "acme", Sequence: 1, Issued: now, Expires: now.Add(24 * time.Hour)}
	if _, err := f.client().PublishDenials(t.Context(), denialSource, security.signer, list); err != nil {
		t.Fatal(err)
	}
	c := f.client()
	c.Now = func() time.Time { return now }
	file, report, err := c.Export(t.Context(), teamHost+"team/tuned:v1", f.rules, o)
	if err != nil {
		t.Fatal(err)
	}
	return f, file, report
}

// TestEvidenceRepeatsTheVerdictOffline: from the file alone, years later.
func TestEvidenceRepeatsTheVerdictOffline(t *testing.T) {
	f, file, report := exported(t, &modelsec.ExportOptions{Roots: [][]byte{[]byte("a root")}})
	v, err := modelsec.VerifyEvidence(t.Context(), file, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, want := must(jsonOf(v.Report)), must(jsonOf(report))
	if !bytes.Equal(got, want) {
		t.Errorf("the repeated report differs:\n%s\n%s", got, want)
	}
	if v.Time != "claimed" || !v.AsOf.Equal(now) || len(v.Roots) != 1 || v.Roots[0] != digestOf([]byte("a root")) || v.Report.Policy != v.Recorded.Policy {
		t.Errorf("got %+v", v)
	}
	var roots [][]byte
	_, err = modelsec.VerifyEvidence(t.Context(), file, &modelsec.EvidenceOptions{Policy: &f.rules, Verifiers: func(r [][]byte) ([]provenance.Verifier, error) {
		roots = r
		return nil, nil
	}})
	if err != nil || len(roots) != 1 || string(roots[0]) != "a root" {
		t.Errorf("under the auditor's own policy: %v, roots %q", err, roots)
	}
	stricter := f.rules
	stricter.Expires = now
	v, err = modelsec.VerifyEvidence(t.Context(), file, &modelsec.EvidenceOptions{Policy: &stricter})
	refused(t, err, errPolicy)
	if v == nil || v.Report.Allowed || !v.Recorded.Allowed {
		t.Errorf("got %+v", v)
	}
}

func TestEvidenceOfARefusalRepeatsIt(t *testing.T) {
	f, _, _ := exported(t, nil)
	c := f.client()
	c.Now = func() time.Time { return now.Add(48 * time.Hour) }
	file, report, err := c.Export(t.Context(), teamHost+"team/tuned:v1", f.rules, nil)
	refused(t, err, errPolicy)
	if file == nil || report == nil {
		t.Fatal("a refusal was not exported")
	}
	v, err := modelsec.VerifyEvidence(t.Context(), file, nil)
	refused(t, err, errPolicy)
	if v == nil || !bytes.Equal(must(jsonOf(v.Report)), must(jsonOf(report))) {
		t.Errorf("got %+v, want %s", v, report)
	}
}

func TestEvidenceOfNoRuleRepeatsTheRefusal(t *testing.T) {
	f, _, _ := exported(t, nil)
	elsewhere := f.rules
	elsewhere.Rules = append([]provenance.Rule{}, f.rules.Rules...)
	elsewhere.Rules[0].Repositories = []string{"registry.example.com/other/*"}
	file, _, err := f.client().Export(t.Context(), teamHost+"team/tuned:v1", elsewhere, nil)
	refused(t, err, errPolicy)
	v, err := modelsec.VerifyEvidence(t.Context(), file, nil)
	refused(t, err, errPolicy)
	if v == nil || v.AsOf.IsZero() {
		t.Errorf("got %+v", v)
	}
}

// edited changes one piece of the body and leaves the rest as it was.
func edited(t testing.TB, file []byte, edit func(body map[string]any)) []byte {
	t.Helper()
	var outer map[string]any
	if err := json.Unmarshal(file, &outer); err != nil {
		t.Fatal(err)
	}
	edit(outer["body"].(map[string]any))
	return must(jsonOf(outer))
}

func artifactOf(body map[string]any, i int) map[string]any {
	return body["artifacts"].([]any)[i].(map[string]any)
}

func TestEvidenceThatWasChangedIsRefused(t *testing.T) {
	_, file, _ := exported(t, nil)
	for name, tt := range map[string]struct {
		edit func(body map[string]any)
		want error
	}{
		"a manifest": {func(b map[string]any) {
			artifactOf(b, 0)["manifest"].(map[string]any)["content"] = base64.StdEncoding.EncodeToString([]byte("{}"))
		}, modelsec.ErrDigest},
		"a digest": {func(b map[string]any) {
			artifactOf(b, 0)["manifest"].(map[string]any)["digest"] = digestOf(nil)
		}, modelsec.ErrDigest},
		"the attestations of the base model": {func(b map[string]any) { artifactOf(b, 1)["attestations"] = []any{} }, modelsec.ErrFormat},
		"the attestations left out":          {func(b map[string]any) { artifactOf(b, 0)["attestations"] = []any{} }, modelsec.ErrFormat},
		"the base model left out":            {func(b map[string]any) { b["artifacts"] = b["artifacts"].([]any)[:1] }, modelsec.ErrFormat},
		"no artifact":                        {func(b map[string]any) { b["artifacts"] = []any{} }, modelsec.ErrFormat},
		"the denial list left out":           {func(b map[string]any) { b["denials"] = []any{} }, modelsec.ErrFormat},
		"a later time":                       {func(b map[string]any) { b["asOf"] = now.Add(48 * time.Hour) }, modelsec.ErrFormat},
		"no time":                            {func(b map[string]any) { b["asOf"] = "0001-01-01T00:00:00Z" }, modelsec.ErrFormat},
		"another tag":                        {func(b map[string]any) { b["tag"] = "v2" }, modelsec.ErrFormat},
		"another repository":                 {func(b map[string]any) { b["repository"] = "elsewhere.example.com/x" }, modelsec.ErrFormat},
		"another reference":                  {func(b map[string]any) { b["reference"] = "elsewhere.example.com/x" }, modelsec.ErrFormat},
		"the decision":                       {func(b map[string]any) { b["report"].(map[string]any)["allowed"] = false }, modelsec.ErrFormat},
		"a member of its own":                {func(b map[string]any) { b["trust"] = "me" }, modelsec.ErrFormat},
		"a policy": {func(b map[string]any) {
			b["policy"] = map[string]any{"digest": digestOf([]byte("{}")), "content": []byte("{}")}
		}, modelsec.ErrFormat},
		"an attestation that is none": {func(b map[string]any) {
			artifactOf(b, 0)["attestations"] = []any{map[string]any{"digest": digestOf([]byte("{}")), "content": []byte("{}")}}
		}, modelsec.ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := modelsec.VerifyEvidence(t.Context(), edited(t, file, tt.edit), nil)
			refused(t, err, tt.want)
		})
	}
	for _, in := range []string{"", "{}", "null", `{"formatVersion":2,"body":{}}`, `{"formatVersion":1,"body":{}}`} {
		_, err := modelsec.VerifyEvidence(t.Context(), []byte(in), nil)
		refused(t, err, modelsec.ErrFormat)
	}
}

// stamping vouches for bundles of one key as seen at some time.
type stamping struct {
	provenance.Verifier
	at time.Time
}

func (s stamping) Verify(ctx context.Context, b *provenance.Bundle) (*provenance.Verified, error) {
	v, err := s.Verifier.Verify(ctx, b)
	if err == nil {
		v.Times, v.Timestamps = []time.Time{s.at}, 1
	}
	return v, err
}

func TestEvidenceTimeIsClaimedUnlessStamped(t *testing.T) {
	sealer := newParty(t)
	_, file, _ := exported(t, &modelsec.ExportOptions{Signer: sealer.signer})
	for name, tt := range map[string]struct {
		shift time.Duration
		want  string
	}{"stamped then": {time.Minute, "proven"}, "stamped a day later": {24 * time.Hour, "claimed"}, "stamped before": {-time.Hour, "claimed"}} {
		v, err := modelsec.VerifyEvidence(t.Context(), file, &modelsec.EvidenceOptions{Verifiers: func([][]byte) ([]provenance.Verifier, error) {
			return []provenance.Verifier{stamping{provenance.KeyVerifier(sealer.key.Public()), now.Add(tt.shift)}}, nil
		}})
		if err != nil || v.Time != tt.want {
			t.Errorf("%s: got %v, %v, want %s", name, v, err, tt.want)
		}
	}
	if v, err := modelsec.VerifyEvidence(t.Context(), file, nil); err != nil || v.Time != "claimed" {
		t.Errorf("sealed by somebody unknown: got %v, %v", v, err)
	}
	// A seal does not fit a body that was changed, be it only in time.
	changed := edited(t, file, func(b map[string]any) { b["asOf"] = now.Add(time.Minute) })
	_, err := modelsec.VerifyEvidence(t.Context(), changed, nil)
	refused(t, err, modelsec.ErrDigest)
}

func TestEvidenceHoldsWhatAnAuditorAsksFor(t *testing.T) {
	_, file, report := exported(t, nil)
	var got struct {
		Body struct {
			Artifacts []struct {
				Manifest     struct{ Digest digest.Digest }
				Attestations []struct{ Digest digest.Digest }
			}
			Denials []struct{ Digest digest.Digest }
			Policy  struct{ Digest digest.Digest }
		}
	}
	if err := json.Unmarshal(file, &got); err != nil {
		t.Fatal(err)
	}
	b := got.Body
	if len(b.Artifacts) != 2 || b.Artifacts[0].Manifest.Digest != report.Manifest || len(b.Artifacts[0].Attestations) != 2 || len(b.Denials) != 1 || b.Policy.Digest != report.Policy {
		t.Errorf("got %+v", b)
	}
}

func TestExportNeedsAPolicyThatCanBeWritten(t *testing.T) {
	f := newFamily(t)
	f.make(t, "team/tuned", provenance.Build{})
	_, _, err := f.client().Export(t.Context(), teamHost+"team/tuned:v1", provenance.UnsafeAcceptUnsigned("test"), nil)
	refused(t, err, modelsec.ErrConfig)
}

// FuzzVerifyEvidence: no file makes it panic, and none is admitted that holds no
// attestation.
func FuzzVerifyEvidence(f *testing.F) {
	_, file, _ := exported(f, nil)
	f.Add(file)
	f.Add([]byte(`{"formatVersion":1,"body":{}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := modelsec.VerifyEvidence(t.Context(), in, nil)
		if err == nil && (!v.Report.Allowed || len(v.Report.Statements) == 0) {
			t.Fatalf("admitted %q", in)
		}
	})
}

// TestK23AGateSummarisesForAFleet: servers that trust the gate alone open what
// it admitted, and nothing that it did not.
func TestK23AGateSummarisesForAFleet(t *testing.T) {
	f := newFamily(t)
	gate := newParty(t)
	f.make(t, "team/tuned", provenance.Build{})
	ref := teamHost + "team/tuned:v1"
	report, err := f.verify(t, "team/tuned")
	if err != nil {
		t.Fatal(err)
	}
	fleet := provenance.Policy{Rules: []provenance.Rule{{Repositories: []string{"registry.example.com/team/*"},
		Summary: &provenance.SummaryRule{Signers: []provenance.Principal{gate.principal(t)}, Verifiers: []string{"https://gate.example.com/v1"},
			Policies: []digest.Digest{report.Policy}, MaxAge: time.Hour},
		Require: []provenance.Requirement{{PredicateType: provenance.PredicateRelease, Signers: []provenance.Principal{f.principal(t)}, Threshold: 1},
			{PredicateType: provenance.PredicateSLSA, Signers: []provenance.Principal{f.principal(t)}, BuildTypes: []string{"https://example.com/never"}}}}}}
	_, err = f.client().Verify(t.Context(), ref, fleet)
	refused(t, err, errPolicy)
	options := modelsec.SummaryOptions{Signer: gate.signer, Verifier: "https://gate.example.com/v1"}
	if _, err := f.client().Summarise(t.Context(), ref, f.rules, options); err != nil {
		t.Fatal(err)
	}
	got, err := f.client().Verify(t.Context(), ref, fleet)
	if err != nil || !got.Summary {
		t.Fatalf("got %v, %v", got, err)
	}
	late := f.client()
	late.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	_, err = late.Verify(t.Context(), ref, fleet)
	refused(t, err, errPolicy)
	contains(t, err, "vsa.maxAge")

	strict := f.rules
	strict.Expires = time.Now().Add(-time.Hour)
	_, err = f.client().Summarise(t.Context(), ref, strict, options)
	refused(t, err, errPolicy)
	_, err = f.client().Summarise(t.Context(), ref, f.rules, modelsec.SummaryOptions{Signer: gate.signer})
	refused(t, err, modelsec.ErrConfig)
	var e *modelsec.Error
	if !errors.As(err, &e) || !strings.Contains(e.Error(), "summarise") {
		t.Errorf("got %v", err)
	}
}

// TestSummaryIsNotSignedForContentThatWasNotCompared: a rule that wants content
// compared is not summarised on evidence alone.
func TestSummaryIsNotSignedForContentThatWasNotCompared(t *testing.T) {
	p, gate := newParty(t), newParty(t)
	memory := registry.NewMemory()
	o := p.options(nil)
	o.Statements = []provenance.Statement{must(provenance.NewPlaintext(provenance.Plaintext{Root: must(modelsec.PlaintextRoot(t.Context(), small(), o))}))}
	push(t, p.client(memory), tagged, small(), o)
	options := modelsec.SummaryOptions{Signer: gate.signer, Verifier: "https://gate.example.com/v1"}

	layers := p.policy()
	layers.Rules[0].CompareLayerDigests = true
	bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
		if strings.HasPrefix(d.MediaType, layerType+"weight") {
			b[7] ^= 1
		}
		return b
	}}
	_, err := p.client(bad).Summarise(t.Context(), tagged, layers, options)
	refused(t, err, modelsec.ErrDigest)
	if _, err := p.client(memory).Summarise(t.Context(), tagged, layers, options); err != nil {
		t.Error(err)
	}
	_, err = p.client(memory).Summarise(t.Context(), tagged, p.comparing(t), options)
	refused(t, err, modelsec.ErrConfig)
}
