// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !amd64 || nolanes || purego

package digest_test

import (
	"errors"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
)

func TestBuildWithoutLanesHasNoPaths(t *testing.T) {
	for _, p := range []digest.Path{digest.Pairs, digest.Sixteen} {
		if _, err := digest.NewLanes(p); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("path %d: got %v, want ErrUnsupported", p, err)
		}
	}
	if w := lanesOf(t, digest.Auto).Width(); w != 1 {
		t.Errorf("got width %d, want 1", w)
	}
}
