// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"errors"
	"fmt"
	"strings"
)

// aboutBuilds reports whether the requirement says what only provenance can meet.
func (q Requirement) aboutBuilds() bool {
	return len(q.Builders)+len(q.BuildTypes)+len(q.Sources)+len(q.SourceRefs)+len(q.SourceDigests)+len(q.Materials) > 0 ||
		q.MinLevel != 0 || q.Parameters != nil || q.Plaintext
}

// builds checks what a requirement says about builds.
func (q Requirement) builds(follows bool) error {
	for _, list := range []struct {
		name   string
		values []string
	}{{"builder", q.Builders}, {"build type", q.BuildTypes}} {
		for _, s := range list.values {
			if s == "" || !printable(s) {
				return fmt.Errorf("%s %q: want the exact id", list.name, clip(s))
			}
		}
	}
	if q.MinLevel < 0 || q.MinLevel > maxLevel {
		return fmt.Errorf("minLevel %d: want 0 to %d", q.MinLevel, maxLevel)
	}
	for _, s := range q.Sources {
		if s == "" || !printable(s) || withoutRevision(s) != s {
			return fmt.Errorf("source %q: want the exact URI of a repository, without a revision", clip(s))
		}
	}
	if len(q.Sources) == 0 && len(q.SourceRefs)+len(q.SourceDigests) > 0 {
		return errors.New("sourceRefs and sourceDigests are of sources: name those too")
	}
	for _, s := range q.SourceRefs {
		if s == "" || !printable(s) || strings.Contains(refFloor(s), "*") {
			return fmt.Errorf("source ref %q: want an exact ref, refs/tags/* or refs/heads/*", clip(s))
		}
	}
	for _, s := range q.SourceDigests {
		algorithm, value, ok := strings.Cut(s, ":")
		if !ok || algorithm == "" || len(value) < 40 || strings.Trim(value, "0123456789abcdef") != "" || !printable(s) {
			return fmt.Errorf("source digest %q: want gitCommit: or sha256: and lower-case hexadecimal digits", clip(s))
		}
	}
	if q.Parameters != nil {
		if err := q.Parameters.check(); err != nil {
			return fmt.Errorf("parameters: %w", err)
		}
	}
	for i, m := range q.Materials {
		if err := m.check(follows); err != nil {
			return fmt.Errorf("materials %d: %w", i, err)
		}
	}
	return nil
}
