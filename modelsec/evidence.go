// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/modelsec/modelsec-go/provenance"
)

// PredicateEvidence is the predicate type of the seal of an evidence file
// (POLICY.md §8).
const PredicateEvidence = "https://modelsec.github.io/evidence/v1"

// Bounds of an evidence file.
const (
	evidenceVersion     = 1
	maxEvidence         = 64 << 20
	maxEvidenceBundles  = 4096
	maxEvidenceArtifact = 1024
)

// evidenceFile is what Export writes. The seal is over Body as compact JSON.
type evidenceFile struct {
	FormatVersion int             `json:"formatVersion"`
	Body          json.RawMessage `json:"body"`
	Seal          []byte          `json:"seal,omitempty"`
}

type evidenceBody struct {
	AsOf       time.Time          `json:"asOf"`
	Reference  string             `json:"reference"`
	Tag        string             `json:"tag,omitempty"`
	Repository string             `json:"repository"`
	Artifacts  []evidenceArtifact `json:"artifacts"`
	Denials    []evidenceContent  `json:"denials"`
	Roots      []evidenceContent  `json:"roots"`
	Policy     evidenceContent    `json:"policy"`
	Report     json.RawMessage    `json:"report"`
}

// evidenceArtifact is one manifest and its attestations: the first is that which
// was judged, the others are what it was made from.
type evidenceArtifact struct {
	Repository   string            `json:"repository"`
	Manifest     evidenceContent   `json:"manifest"`
	Attestations []evidenceContent `json:"attestations"`
}

// evidenceContent is bytes and their digest, so that an auditor can tell them
// apart without a tool.
type evidenceContent struct {
	Digest  godigest.Digest `json:"digest"`
	Content []byte          `json:"content"`
}

func contentOf(b []byte) evidenceContent { return evidenceContent{digestOf(b), b} }

func contentsOf(bundles []*provenance.Bundle) []evidenceContent {
	out := make([]evidenceContent, 0, len(bundles))
	for _, b := range bundles {
		out = append(out, contentOf(b.Bytes()))
	}
	return out
}

// ExportOptions say what goes into an evidence file beside what was judged. Nil:
// nothing.
type ExportOptions struct {
	// Roots are the trusted roots that the client's Verifiers go by.
	Roots [][]byte
	// Signer seals the file. One that has its signatures stamped makes the time
	// provable at which the decision was made; else it reads "claimed".
	Signer provenance.Signer
}

// Export judges the artifact as Verify does, without its index, and returns one
// file with all that the decision rests on: manifest, attestations, those of its
// inputs, denial lists, roots, policy, report and the digest of each. A refusal
// is exported too: the error is a *provenance.PolicyError, and the file and the
// report come with it. Floors are not consulted, since no file could show them.
func (c *Client) Export(ctx context.Context, ref string, p provenance.Policy, o *ExportOptions) ([]byte, *provenance.Report, error) {
	c.init()
	op := c.begin("export", ref)
	if o == nil {
		o = &ExportOptions{}
	}
	policy, err := p.Document()
	if err != nil {
		return nil, nil, op.fail(fmt.Errorf("%w: %w", ErrConfig, err))
	}
	a, err := c.resolve(ctx, op)
	if err != nil {
		return nil, nil, op.fail(err)
	}
	a.walk = newWalk(p, false)
	a.walk.keep = true
	if err := a.judge(ctx, p); err != nil {
		return nil, nil, op.fail(err)
	}
	file, err := a.evidence(ctx, policy, o)
	if err != nil {
		return nil, nil, op.fail(err)
	}
	return file, a.report, op.fail(a.enforce(ctx))
}

func (a *artifact) evidence(ctx context.Context, policy []byte, o *ExportOptions) ([]byte, error) {
	report, err := json.Marshal(a.report)
	if err != nil {
		return nil, err
	}
	asOf := a.report.Time
	if asOf.IsZero() {
		// Where no rule applies, nothing was judged that needs a clock.
		asOf = a.c.now()
	}
	body := evidenceBody{AsOf: asOf.UTC(), Reference: a.ref.Name, Tag: a.report.Tag, Repository: a.report.Repository,
		Denials: []evidenceContent{}, Roots: []evidenceContent{}, Policy: contentOf(policy), Report: report}
	for _, b := range a.walk.walked(a) {
		body.Artifacts = append(body.Artifacts, evidenceArtifact{Repository: b.ref.Name, Manifest: contentOf(b.raw), Attestations: contentsOf(b.bundles)})
	}
	if a.walk.lists != nil {
		body.Denials = contentsOf(a.walk.lists.bundles)
	}
	for _, r := range o.Roots {
		body.Roots = append(body.Roots, contentOf(r))
	}
	file := evidenceFile{FormatVersion: evidenceVersion}
	if file.Body, err = json.Marshal(body); err != nil {
		return nil, err
	}
	if o.Signer != nil {
		predicate, err := json.Marshal(sealDocument{body.AsOf})
		if err != nil {
			return nil, err
		}
		seal, err := sign(ctx, o.Signer, provenance.Statement{PredicateType: PredicateEvidence, Predicate: predicate}, digestOf(file.Body))
		if err != nil {
			return nil, err
		}
		file.Seal = seal.Bytes()
	}
	out, err := json.Marshal(file)
	if err == nil && len(out) > maxEvidence {
		err = fmt.Errorf("%w: evidence of %d bytes, limit %d", ErrLimit, len(out), maxEvidence)
	}
	return out, err
}

type sealDocument struct {
	AsOf time.Time `json:"asOf"`
}

// walked are the artifacts of a walk that were resolved, the first one first.
func (w *walk) walked(first *artifact) []*artifact {
	out := []*artifact{first}
	for _, s := range w.steps {
		if s.artifact != nil && s.artifact != first {
			out = append(out, s.artifact)
		}
	}
	sortArtifacts(out[1:])
	return out
}

// parseEvidence reads a file and holds everything in it to its digest.
func parseEvidence(b []byte) (*evidenceFile, *evidenceBody, error) {
	var file evidenceFile
	if err := strictjson.Unmarshal(b, &file, maxEvidence); err != nil {
		return nil, nil, fmt.Errorf("%w: evidence: %w", ErrFormat, err)
	}
	if file.FormatVersion != evidenceVersion {
		return nil, nil, fmt.Errorf("%w: evidence: formatVersion %d, want %d", ErrFormat, file.FormatVersion, evidenceVersion)
	}
	var body evidenceBody
	if err := strictjson.Unmarshal(file.Body, &body, maxEvidence); err != nil {
		return nil, nil, fmt.Errorf("%w: evidence: %w", ErrFormat, err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, file.Body); err != nil {
		return nil, nil, fmt.Errorf("%w: evidence: %w", ErrFormat, err)
	}
	file.Body = compact.Bytes()
	return &file, &body, body.check()
}

func (e *evidenceBody) check() error {
	switch {
	case e.AsOf.IsZero():
		return fmt.Errorf("%w: evidence without a time", ErrFormat)
	case len(e.Artifacts) == 0 || len(e.Artifacts) > maxEvidenceArtifact:
		return fmt.Errorf("%w: evidence about %d artifacts, want 1 to %d", ErrFormat, len(e.Artifacts), maxEvidenceArtifact)
	case e.Artifacts[0].Repository != e.Reference:
		return fmt.Errorf("%w: evidence about %q, whose first artifact is of %q", ErrFormat, clip(e.Reference), clip(e.Artifacts[0].Repository))
	}
	all := append([]evidenceContent{e.Policy}, e.Roots...)
	all = append(all, e.Denials...)
	bundles := len(e.Denials)
	for _, a := range e.Artifacts {
		all = append(append(all, a.Manifest), a.Attestations...)
		bundles += len(a.Attestations)
	}
	if bundles > maxEvidenceBundles {
		return fmt.Errorf("%w: evidence with %d attestations, limit %d", ErrFormat, bundles, maxEvidenceBundles)
	}
	for _, c := range all {
		if got := digestOf(c.Content); got != c.Digest {
			return fmt.Errorf("%w: evidence: content has digest %s, and the file says %s", ErrDigest, got, clip(string(c.Digest)))
		}
	}
	return nil
}
