// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// Provenance is a SLSA provenance predicate (https://slsa.dev/provenance/v1). It
// reads what any builder wrote: members that it does not name are ignored.
type Provenance struct {
	BuildDefinition BuildDefinition `json:"buildDefinition"`
	RunDetails      RunDetails      `json:"runDetails"`
}

// BuildDefinition is what was asked of the builder.
type BuildDefinition struct {
	// BuildType says what ExternalParameters mean.
	BuildType string `json:"buildType"`
	// ExternalParameters come from outside the builder and are not to be trusted
	// because of it. For the build types of this package they are Parameters.
	ExternalParameters   json.RawMessage      `json:"externalParameters"`
	InternalParameters   json.RawMessage      `json:"internalParameters,omitempty"`
	ResolvedDependencies []ResourceDescriptor `json:"resolvedDependencies,omitempty"`
}

// RunDetails is how the builder did it.
type RunDetails struct {
	Builder    Builder              `json:"builder"`
	Metadata   *BuildMetadata       `json:"metadata,omitempty"`
	Byproducts []ResourceDescriptor `json:"byproducts,omitempty"`
}

// Builder is who ran the build. Its ID means what the signer's trust makes it mean.
type Builder struct {
	ID                  string               `json:"id"`
	Version             map[string]string    `json:"version,omitempty"`
	BuilderDependencies []ResourceDescriptor `json:"builderDependencies,omitempty"`
}

// BuildMetadata is what the builder asserts about the run.
type BuildMetadata struct {
	InvocationID string     `json:"invocationId,omitempty"`
	StartedOn    *time.Time `json:"startedOn,omitempty"`
	FinishedOn   *time.Time `json:"finishedOn,omitempty"`
}

// ResourceDescriptor names something by URI and digests, as in-toto does.
type ResourceDescriptor struct {
	Name             string                     `json:"name,omitempty"`
	URI              string                     `json:"uri,omitempty"`
	Digest           map[string]string          `json:"digest,omitempty"`
	Content          []byte                     `json:"content,omitempty"`
	DownloadLocation string                     `json:"downloadLocation,omitempty"`
	MediaType        string                     `json:"mediaType,omitempty"`
	Annotations      map[string]json.RawMessage `json:"annotations,omitempty"`
}

// Role returns the annotation by which dependencies of our build types say what
// they were used for, or nothing.
func (d ResourceDescriptor) Role() string {
	var role string
	if json.Unmarshal(d.Annotations["role"], &role) != nil {
		return ""
	}
	return role
}

// ParseProvenance reads SLSA provenance: it names a builder and a build type,
// and for the build types of FORMAT.md §9.3 the parameters and dependencies are
// what the type calls for.
func ParseProvenance(s Statement) (Provenance, error) {
	if s.PredicateType != PredicateSLSA {
		return Provenance{}, formatError("predicate type %q, want %q", clip(s.PredicateType), PredicateSLSA)
	}
	var p Provenance
	if err := strictjson.UnmarshalLenient(s.Predicate, &p, maxStatement); err != nil {
		return Provenance{}, formatError("SLSA provenance: %w", err)
	}
	if err := p.check(); err != nil {
		return Provenance{}, formatError("SLSA provenance: %w", err)
	}
	return p, nil
}

func (p Provenance) check() error {
	if id := p.RunDetails.Builder.ID; id == "" || !printable(id) {
		return fmt.Errorf("builder id %q: want a URI", clip(id))
	}
	if t := p.BuildDefinition.BuildType; t == "" || !printable(t) {
		return fmt.Errorf("build type %q: want a URI", clip(t))
	}
	var parameters map[string]json.RawMessage
	if err := json.Unmarshal(p.BuildDefinition.ExternalParameters, &parameters); err != nil || parameters == nil {
		return errors.New("externalParameters must be an object")
	}
	schema, ok := buildTypes[p.BuildDefinition.BuildType]
	if !ok {
		return nil
	}
	if err := p.BuildDefinition.checkOwn(schema); err != nil {
		return fmt.Errorf("build type %s: %w", p.BuildDefinition.BuildType, err)
	}
	return nil
}

// checkOwn applies the closed schema of one of our build types (FORMAT.md §9.3).
func (d BuildDefinition) checkOwn(schema buildSchema) error {
	parameters := schema.parameters()
	if err := strictjson.Unmarshal(d.ExternalParameters, parameters, maxStatement); err != nil {
		return fmt.Errorf("externalParameters: %w", err)
	}
	if err := parameters.check(); err != nil {
		return fmt.Errorf("externalParameters: %w", err)
	}
	counts := make(map[string]int)
	for i, dep := range d.ResolvedDependencies {
		role := dep.Role()
		if !slices.Contains(roles, role) {
			return fmt.Errorf("dependency %d has role %q, want one of %q", i, clip(role), roles)
		}
		if err := checkHex(dep.Digest["sha256"]); err != nil {
			return fmt.Errorf("dependency %d: %w", i, err)
		}
		counts[role]++
	}
	return schema.dependencies(counts)
}
