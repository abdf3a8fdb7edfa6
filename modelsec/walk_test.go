// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

const teamHost = "registry.example.com/"

// family is a team whose models are made from one another.
type family struct {
	*party
	memory  registry.Opener
	rules   provenance.Policy
	mu      sync.Mutex
	visited []string
}

func newFamily(t testing.TB) *family {
	f := &family{party: newParty(t), memory: registry.NewMemory()}
	signers := []provenance.Principal{f.principal(t)}
	f.rules = provenance.Policy{
		Lineage: provenance.Lineage{Repositories: []string{"registry.example.com/team/*"}},
		Rules: []provenance.Rule{{Repositories: []string{"registry.example.com/*"}, Require: []provenance.Requirement{
			{PredicateType: provenance.PredicateSLSA, Signers: signers, Materials: []provenance.MaterialRule{{Verified: true}}}}}},
	}
	return f
}

// Open notes which repositories are asked for.
func (f *family) Open(ctx context.Context, name string) (registry.Store, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Contains(f.visited, name) {
		f.visited = append(f.visited, name)
	}
	return f.memory.Open(ctx, name)
}

func (f *family) client() *modelsec.Client { return f.party.client(f) }

// input is a dependency on an artifact of a repository.
func input(role, name string, d digest.Digest) provenance.Dependency {
	return provenance.Dependency{URI: teamHost + name, Digest: d, Role: role}
}

// make publishes a model that was made from others. Each has content of its own.
func (f *family) make(t testing.TB, name string, b provenance.Build) digest.Digest {
	t.Helper()
	if b.Builder == "" {
		b.Builder = "https://builders.example.com/local/v1"
	}
	if b.Parameters == nil {
		b.Parameters = provenance.Convert{To: name}
	}
	o := f.options(nil)
	o.Statements = []provenance.Statement{must(provenance.NewProvenance(b))}
	return push(t, f.client(), teamHost+name+":v1", source(map[string]int{"model.safetensors": 300 + len(name)}), o).Digest
}

func (f *family) verify(t testing.TB, name string) (*provenance.Report, error) {
	t.Helper()
	f.visited = nil
	return f.client().Verify(t.Context(), teamHost+name+":v1", f.rules)
}

func TestMaterialsAreVerifiedAllTheWayDown(t *testing.T) {
	f := newFamily(t)
	data := f.make(t, "team/data", provenance.Build{})
	base := f.make(t, "team/base-model", provenance.Build{Dependencies: []provenance.Dependency{input(provenance.RoleDataset, "team/data", data)}})
	f.make(t, "team/tuned", provenance.Build{Dependencies: []provenance.Dependency{input(provenance.RoleBase, "team/base-model", base)}})
	if _, err := f.verify(t, "team/tuned"); err != nil {
		t.Fatal(err)
	}
	if want := []string{teamHost + "team/tuned", teamHost + "team/base-model", teamHost + "team/data"}; !slices.Equal(f.visited, want) {
		t.Errorf("asked for %q, want %q", f.visited, want)
	}
	// The dataset of the base model is revoked two steps away.
	security := newParty(t)
	list := provenance.DenialList{Name: "acme", Issued: now, Expires: now.AddDate(20, 0, 0), Entries: []provenance.Denial{{Digest: data, Reason: "poisoned"}}}
	f.rules.Denials = []provenance.DenialSource{{Name: "acme", Signers: []provenance.Principal{security.principal(t)}}}
	c := f.client()
	c.Bundles = []*provenance.Bundle{signed(t, security, list.Subject(), must(provenance.NewDenials(list)))}
	_, err := c.Verify(t.Context(), teamHost+"team/tuned:v1", f.rules)
	refused(t, err, errPolicy)
	contains(t, err, "poisoned")
}

func TestAnInputThatDoesNotPassRefusesWhatWasMadeFromIt(t *testing.T) {
	f := newFamily(t)
	stranger := newParty(t)
	foreign := push(t, f.client(), teamHost+"team/foreign:v1", small(), stranger.options(nil)).Digest
	for name, tt := range map[string]struct {
		input provenance.Dependency
		words []string
	}{
		"signed by a stranger": {input(provenance.RoleBase, "team/foreign", foreign), []string{"materials.verified", "is refused"}},
		"not there":            {input(provenance.RoleBase, "team/foreign", digestOf([]byte("gone"))), []string{"materials.verified", "not found"}},
		"elsewhere":            {input(provenance.RoleBase, "other/model", foreign), []string{"materials.verified", "outside of the lineage"}},
	} {
		f.make(t, "team/tuned", provenance.Build{Dependencies: []provenance.Dependency{tt.input}, Parameters: provenance.Convert{To: name}})
		_, err := f.verify(t, "team/tuned")
		refused(t, err, errPolicy)
		contains(t, err, tt.words...)
		if slices.Contains(f.visited, teamHost+"other/model") {
			t.Errorf("%s: a repository was asked for that the policy does not list", name)
		}
	}
}

// TestK42WalksEnd, whatever the statements say.
func TestK42WalksEnd(t *testing.T) {
	f := newFamily(t)
	before := f.make(t, "team/m0", provenance.Build{})
	for i := range 6 {
		before = f.make(t, fmt.Sprintf("team/m%d", i+1), provenance.Build{Parameters: provenance.Convert{To: fmt.Sprint(i)},
			Dependencies: []provenance.Dependency{input(provenance.RoleBase, fmt.Sprintf("team/m%d", i), before)}})
	}
	if _, err := f.verify(t, "team/m4"); err != nil {
		t.Error(err)
	}
	_, err := f.verify(t, "team/m6")
	contains(t, err, "more than 4 steps away")
	f.rules.Lineage.MaxDepth, f.rules.Lineage.MaxArtifacts = 16, 3
	_, err = f.verify(t, "team/m6")
	contains(t, err, "more than 3 artifacts")
	f.rules.Lineage.MaxArtifacts = 0
	if _, err := f.verify(t, "team/m6"); err != nil {
		t.Error(err)
	}
	// Statements can be added later, so they can close a circle.
	circle := must(provenance.NewProvenance(provenance.Build{Parameters: provenance.Convert{}, Builder: "https://builders.example.com/local/v1",
		Dependencies: []provenance.Dependency{input(provenance.RoleBase, "team/m6", before)}}))
	first, err := f.client().Resolve(t.Context(), teamHost+"team/m5:v1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.client().Attest(t.Context(), teamHost+"team/m5@"+string(first.Digest), f.signer, circle); err != nil {
		t.Fatal(err)
	}
	if _, err := f.verify(t, "team/m6"); err != nil {
		t.Errorf("one statement that closes a circle takes nothing away: %v", err)
	}
}
