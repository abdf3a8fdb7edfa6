// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/registry"
)

// Version is one manifest of a repository and the tags that name it now.
type Version struct {
	Digest godigest.Digest
	Tags   []string
}

// referrersTag is the form of a tag under which clients list referrers where
// a registry cannot: it names no version.
var referrersTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.|$)`)

// versions lists what the tags of a repository name, in the order of its
// listing.
func versions(ctx context.Context, store registry.Store) ([]Version, error) {
	var out []Version
	at := make(map[godigest.Digest]int)
	for tag, err := range store.Tags(ctx) {
		if err != nil {
			return nil, err
		}
		if referrersTag.MatchString(tag) {
			continue
		}
		d, err := store.Resolve(ctx, tag)
		if errors.Is(err, registry.ErrNotFound) {
			continue // it was deleted since it was listed
		}
		if err != nil {
			return nil, err
		}
		i, ok := at[d.Digest]
		if !ok {
			i = len(out)
			at[d.Digest] = i
			out = append(out, Version{Digest: d.Digest})
		}
		out[i].Tags = append(out[i].Tags, tag)
	}
	return out, nil
}

// overVersions calls each for every version of a repository, one after the
// other, until ctx ends; for one version where the reference names one.
func (c *Client) overVersions(ctx context.Context, op *operation, digests []godigest.Digest, each func(ref string, v Version) error) error {
	ref, store, err := c.openStore(ctx, op)
	if err != nil {
		return err
	}
	var found []Version
	switch {
	case ref.Digest != "":
		found = []Version{{Digest: ref.Digest}}
	case ref.Tag != "":
		d, err := store.Resolve(ctx, ref.Tag)
		if err != nil {
			return err
		}
		found = []Version{{Digest: d.Digest, Tags: []string{ref.Tag}}}
	default:
		if found, err = versions(ctx, store); err != nil {
			return err
		}
	}
	for _, d := range digests {
		if err := index.CheckDigest(d); err != nil {
			return fmt.Errorf("%w: %w", ErrConfig, err)
		}
		if !slices.ContainsFunc(found, func(v Version) bool { return v.Digest == d }) {
			found = append(found, Version{Digest: d})
		}
	}
	for _, v := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each(ref.Name+"@"+string(v.Digest), v); err != nil {
			return err
		}
	}
	return nil
}

// encryptedModel reports whether the manifest claims to be an encrypted model:
// everything else in a repository has no grants.
func (a *artifact) encryptedModel() bool {
	return a.indexed && a.manifest.Annotations[profileAnnotation] == string(index.Encrypted)
}
