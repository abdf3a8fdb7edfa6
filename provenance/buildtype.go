// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/opencontainers/go-digest"
)

// Build types of models (FORMAT.md §9.3).
const (
	BuildTypeTrain    = "https://modelsec.github.io/buildtypes/train/v1"
	BuildTypeFineTune = "https://modelsec.github.io/buildtypes/fine-tune/v1"
	BuildTypeQuantise = "https://modelsec.github.io/buildtypes/quantise/v1"
	BuildTypeMerge    = "https://modelsec.github.io/buildtypes/merge/v1"
	BuildTypeConvert  = "https://modelsec.github.io/buildtypes/convert/v1"
)

// Roles of dependencies in these build types.
const (
	RoleBase      = "base"
	RoleAdapter   = "adapter"
	RoleDataset   = "dataset"
	RoleCode      = "code"
	RoleContainer = "container"
	RoleTokenizer = "tokenizer"
)

var roles = []string{RoleBase, RoleAdapter, RoleDataset, RoleCode, RoleContainer, RoleTokenizer}

// Parameters are the external parameters of one build type: Train, FineTune,
// Quantise, Merge or Convert.
type Parameters interface {
	buildType() string
	check() error
}

// Train is training from scratch. It needs a dataset.
type Train struct {
	// Source is the URI of the training code.
	Source string `json:"source"`
	// Config names the configuration within the source. May be empty.
	Config string `json:"config,omitempty"`
	// Seed may be nil.
	Seed *int64 `json:"seed,omitempty"`
}

// FineTune changes a base model with a dataset; it needs both.
type FineTune struct {
	// Source is the URI of the training code. May be empty.
	Source string `json:"source,omitempty"`
	// Method, as in lora.
	Method string `json:"method"`
	// Config names the configuration within the source. May be empty.
	Config string `json:"config,omitempty"`
	// Seed may be nil.
	Seed *int64 `json:"seed,omitempty"`
}

// Quantise makes a base model smaller. It needs the base.
type Quantise struct {
	// Scheme, as in int8 or Q4_K_M.
	Scheme string `json:"scheme"`
	// Calibration says whether a dataset chose the scales. May be nil.
	Calibration *bool `json:"calibration,omitempty"`
}

// Merge combines two or more base models and adapters.
type Merge struct {
	// Method, as in linear or ties.
	Method string `json:"method"`
	// Weights of the inputs, in the order of the dependencies. May be empty.
	Weights []float64 `json:"weights,omitempty"`
}

// Convert changes the file format alone.
type Convert struct {
	// From and To name the formats. Both may be empty.
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

func (Train) buildType() string    { return BuildTypeTrain }
func (FineTune) buildType() string { return BuildTypeFineTune }
func (Quantise) buildType() string { return BuildTypeQuantise }
func (Merge) buildType() string    { return BuildTypeMerge }
func (Convert) buildType() string  { return BuildTypeConvert }

func (p Train) check() error    { return needed("source", p.Source) }
func (p FineTune) check() error { return needed("method", p.Method) }
func (p Quantise) check() error { return needed("scheme", p.Scheme) }
func (Convert) check() error    { return nil }

func (p Merge) check() error {
	for i, w := range p.Weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return fmt.Errorf("weight %d is not a finite number", i)
		}
	}
	return needed("method", p.Method)
}

func needed(member, value string) error {
	if value == "" {
		return fmt.Errorf("%s is missing", member)
	}
	return nil
}

// buildSchema is what one of our build types calls for.
type buildSchema struct {
	parameters   func() Parameters
	dependencies func(counts map[string]int) error
}

var buildTypes = map[string]buildSchema{
	BuildTypeTrain:    {func() Parameters { return &Train{} }, needRoles(RoleDataset)},
	BuildTypeFineTune: {func() Parameters { return &FineTune{} }, needRoles(RoleBase, RoleDataset)},
	BuildTypeQuantise: {func() Parameters { return &Quantise{} }, needRoles(RoleBase)},
	BuildTypeConvert:  {func() Parameters { return &Convert{} }, needRoles()},
	BuildTypeMerge: {func() Parameters { return &Merge{} }, func(counts map[string]int) error {
		if n := counts[RoleBase] + counts[RoleAdapter]; n < 2 {
			return fmt.Errorf("%d dependencies of role %s or %s, want at least 2", n, RoleBase, RoleAdapter)
		}
		return nil
	}},
}

func needRoles(needed ...string) func(map[string]int) error {
	return func(counts map[string]int) error {
		for _, role := range needed {
			if counts[role] == 0 {
				return fmt.Errorf("no dependency of role %s", role)
			}
		}
		return nil
	}
}

// Dependency is an input of a build.
type Dependency struct {
	// URI says where it came from. May be empty.
	URI string
	// Digest is the SHA-256 of it; of an OCI artifact, its manifest digest.
	Digest digest.Digest
	// Role is one of the Role constants.
	Role string
}

// Build describes a build for NewProvenance.
type Build struct {
	// Parameters also say which build type it is.
	Parameters Parameters
	// Builder is the id of who ran it.
	Builder string
	// Dependencies are its inputs, with the roles that the build type calls for.
	Dependencies []Dependency
	// Invocation identifies the run to the builder. May be empty.
	Invocation string
	// Started and Finished may be zero.
	Started, Finished time.Time
}

// NewProvenance returns the SLSA provenance statement of a build.
func NewProvenance(b Build) (Statement, error) {
	if b.Parameters == nil {
		return Statement{}, formatError("build without parameters: want Train, FineTune, Quantise, Merge or Convert")
	}
	if err := b.Parameters.check(); err != nil {
		return Statement{}, formatError("%s: %w", b.Parameters.buildType(), err)
	}
	parameters, err := json.Marshal(b.Parameters)
	if err != nil {
		return Statement{}, err
	}
	p := Provenance{
		BuildDefinition: BuildDefinition{BuildType: b.Parameters.buildType(), ExternalParameters: parameters},
		RunDetails:      RunDetails{Builder: Builder{ID: b.Builder}},
	}
	for i, d := range b.Dependencies {
		if err := checkDigest(d.Digest); err != nil {
			return Statement{}, formatError("dependency %d: %w", i, err)
		}
		role, err := json.Marshal(d.Role)
		if err != nil {
			return Statement{}, err
		}
		p.BuildDefinition.ResolvedDependencies = append(p.BuildDefinition.ResolvedDependencies, ResourceDescriptor{
			URI:         d.URI,
			Digest:      map[string]string{"sha256": d.Digest.Encoded()},
			Annotations: map[string]json.RawMessage{"role": role},
		})
	}
	if b.Invocation != "" || !b.Started.IsZero() || !b.Finished.IsZero() {
		p.RunDetails.Metadata = &BuildMetadata{InvocationID: b.Invocation, StartedOn: moment(b.Started), FinishedOn: moment(b.Finished)}
	}
	if err := p.check(); err != nil {
		return Statement{}, formatError("SLSA provenance: %w", err)
	}
	predicate, err := json.Marshal(p)
	if err != nil {
		return Statement{}, err
	}
	return Statement{PredicateType: PredicateSLSA, Predicate: predicate}, nil
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// checkHex wants the hexadecimal digits of a SHA-256.
func checkHex(s string) error {
	if s == "" {
		return errors.New("no sha256 digest")
	}
	return checkDigest(digest.NewDigestFromEncoded(digest.SHA256, s))
}
