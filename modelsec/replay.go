// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// EvidenceOptions say whom the reader of an evidence file trusts.
type EvidenceOptions struct {
	// Policy judges the evidence. Nil: the policy in the file, which is the word
	// of whoever exported it.
	Policy *provenance.Policy
	// Verifiers returns who verifies identities. It is given the trusted roots of
	// the file; to build on them is to trust the file for them. Keys of the policy
	// need none. Nil: there are no verifiers.
	Verifiers func(roots [][]byte) ([]provenance.Verifier, error)
}

// Verdict is a decision that was made again from an evidence file.
type Verdict struct {
	// Report is what the evidence shows now, as of AsOf.
	Report *provenance.Report
	// Recorded is what the file says was decided then.
	Recorded *provenance.Report
	// AsOf is when it was decided.
	AsOf time.Time
	// Time is "proven" where a trusted party stamped the seal of the file within 5
	// minutes of AsOf, else "claimed".
	Time string
	// Digest is that of the file's body.
	Digest godigest.Digest
	// Roots are the digests of the trusted roots in the file.
	Roots []godigest.Digest
}

// sealTolerance is how far the stamp of a seal may lie from the decision.
const sealTolerance = 5 * time.Minute

// VerifyEvidence makes the decision of an evidence file again, from nothing but
// the file: no network, no clock. A refusal is a *provenance.PolicyError, and
// comes with the verdict. A file whose evidence shows something else than it
// says was decided is malformed, unless another policy is given. At most 64 MiB.
func VerifyEvidence(ctx context.Context, file []byte, o *EvidenceOptions) (*Verdict, error) {
	op := (&Client{}).begin("verify", "evidence")
	if o == nil {
		o = &EvidenceOptions{}
	}
	v, err := verifyEvidence(ctx, file, o)
	return v, op.fail(err)
}

func verifyEvidence(ctx context.Context, b []byte, o *EvidenceOptions) (*Verdict, error) {
	file, body, err := parseEvidence(b)
	if err != nil {
		return nil, err
	}
	v := &Verdict{AsOf: body.AsOf, Time: "claimed", Digest: digestOf(file.Body), Recorded: &provenance.Report{}}
	if err := strictjson.UnmarshalLenient(body.Report, v.Recorded, maxEvidence); err != nil {
		return nil, fmt.Errorf("%w: evidence: report: %w", ErrFormat, err)
	}
	policy, err := provenance.ParsePolicy(body.Policy.Content)
	if err != nil {
		return nil, fmt.Errorf("%w: evidence: %w", ErrFormat, err)
	}
	if o.Policy != nil {
		policy = *o.Policy
	}
	if body.Repository != body.Reference {
		policy = policy.For(body.Repository)
	}
	c := &Client{Now: func() time.Time { return body.AsOf }}
	if c.Verifiers, err = o.verifiers(body, v); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if v.Report, err = c.replay(ctx, body, policy); err != nil {
		return nil, err
	}
	if file.Seal != nil {
		if v.Time, err = timeOfSeal(ctx, file, body.AsOf, append(c.Verifiers, provenance.KeyVerifier(policy.Keys()...))); err != nil {
			return nil, err
		}
	}
	if o.Policy == nil && v.Report.Allowed != v.Recorded.Allowed {
		return v, fmt.Errorf("%w: evidence: the file says %s, and what it holds shows %s", ErrFormat, decision(v.Recorded), decision(v.Report))
	}
	return v, v.Report.Err()
}

func decision(r *provenance.Report) string {
	if r.Allowed {
		return "allowed"
	}
	return "refused"
}

func (o *EvidenceOptions) verifiers(body *evidenceBody, v *Verdict) ([]provenance.Verifier, error) {
	var roots [][]byte
	for _, r := range body.Roots {
		roots = append(roots, r.Content)
		v.Roots = append(v.Roots, r.Digest)
	}
	if o.Verifiers == nil {
		return nil, nil
	}
	return o.Verifiers(roots)
}

// recorded is what a walk goes by instead of a registry.
type recorded struct {
	bundles map[place][]*provenance.Bundle
	lists   []*provenance.Bundle
}

// replay judges what the file holds as it was judged: the manifests come from
// memory, everything after them takes the same way.
func (c *Client) replay(ctx context.Context, body *evidenceBody, p provenance.Policy) (*provenance.Report, error) {
	memory := registry.NewMemory()
	c.Registry = memory
	c.init()
	r := &recorded{bundles: make(map[place][]*provenance.Bundle)}
	var err error
	if r.lists, err = bundlesOf(body.Denials); err != nil {
		return nil, err
	}
	for _, a := range body.Artifacts {
		store, err := memory.Open(ctx, a.Repository)
		if err != nil {
			return nil, err
		}
		if _, err := store.(registry.WriteStore).PushManifest(ctx, ocispec.MediaTypeImageManifest, a.Manifest.Content); err != nil {
			return nil, fmt.Errorf("%w: evidence: %w", ErrFormat, err)
		}
		if r.bundles[place{a.Repository, string(a.Manifest.Digest)}], err = bundlesOf(a.Attestations); err != nil {
			return nil, err
		}
	}
	ref := registry.Reference{Name: body.Reference, Digest: body.Artifacts[0].Manifest.Digest}
	a, err := c.resolve(ctx, c.begin("verify", ref.String()))
	if err != nil {
		return nil, err
	}
	if body.Tag != "" {
		a.ref.Tag, a.ref.Digest = body.Tag, ""
	}
	a.walk = newWalk(p, false)
	a.walk.keep, a.walk.recorded = true, r
	err = a.judge(ctx, p)
	return a.report, err
}

func bundlesOf(list []evidenceContent) ([]*provenance.Bundle, error) {
	var out []*provenance.Bundle
	for _, c := range list {
		b, err := provenance.ParseBundle(c.Content)
		if err != nil {
			return nil, fmt.Errorf("%w: evidence: %s: %w", ErrFormat, c.Digest, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// timeOfSeal says whether a trusted party saw the sealed file when the decision
// is said to have been made. A seal about something else is no seal.
func timeOfSeal(ctx context.Context, file *evidenceFile, asOf time.Time, verifiers []provenance.Verifier) (string, error) {
	b, err := provenance.ParseBundle(file.Seal)
	if err != nil {
		return "", fmt.Errorf("%w: evidence: seal: %w", ErrFormat, err)
	}
	st, subjects, err := provenance.DecodeStatement(b.Envelope().Payload, nil)
	if err != nil {
		return "", fmt.Errorf("%w: evidence: seal: %w", ErrFormat, err)
	}
	var said sealDocument
	if err := json.Unmarshal(st.Predicate, &said); err != nil || st.PredicateType != PredicateEvidence || !slices.Equal(subjects, []godigest.Digest{digestOf(file.Body)}) || !said.AsOf.Equal(asOf) {
		return "", fmt.Errorf("%w: evidence: the seal is about something else", ErrDigest)
	}
	for _, v := range verifiers {
		proven, err := v.Verify(ctx, b)
		if err != nil || len(proven.Times) == 0 {
			continue
		}
		if first := slices.MinFunc(proven.Times, time.Time.Compare); first.Sub(asOf).Abs() <= sealTolerance {
			return "proven", nil
		}
	}
	return "claimed", nil
}

// sortArtifacts makes two exports of one decision equal.
func sortArtifacts(list []*artifact) {
	slices.SortFunc(list, func(a, b *artifact) int {
		return cmp.Or(cmp.Compare(a.ref.Name, b.ref.Name), cmp.Compare(a.desc.Digest, b.desc.Digest))
	})
}
