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
// listing, and after it the digests given.
func versions(ctx context.Context, store registry.Store, digests []godigest.Digest) ([]Version, error) {
	var out []Version
	at := make(map[godigest.Digest]int)
	add := func(d godigest.Digest, tags ...string) {
		i, ok := at[d]
		if !ok {
			i = len(out)
			at[d] = i
			out = append(out, Version{Digest: d})
		}
		out[i].Tags = append(out[i].Tags, tags...)
	}
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
		add(d.Digest, tag)
	}
	for _, d := range digests {
		if err := index.CheckDigest(d); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrConfig, err)
		}
		add(d)
	}
	return out, nil
}

// overVersions calls each for every version of a repository, one after the
// other, until ctx ends.
func (c *Client) overVersions(ctx context.Context, op *operation, digests []godigest.Digest, each func(Version) error) error {
	ref, store, err := c.openStore(ctx, op)
	if err != nil {
		return err
	}
	if ref.Tag != "" || ref.Digest != "" {
		return fmt.Errorf("%w: %q names a version; give the repository", ErrConfig, op.ref)
	}
	found, err := versions(ctx, store, slices.Clone(digests))
	if err != nil {
		return err
	}
	for _, v := range found {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each(v); err != nil {
			return err
		}
	}
	return nil
}

// pinnedRef is the reference of a version of the operation's repository.
func (o *operation) pinnedRef(d godigest.Digest) string { return o.ref + "@" + string(d) }

// encryptedModel reports whether the manifest claims to be an encrypted model:
// everything else in a repository has no grants.
func (a *artifact) encryptedModel() bool {
	return a.indexed && a.manifest.Annotations[profileAnnotation] == string(index.Encrypted)
}
