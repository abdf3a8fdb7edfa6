// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

const tagLong = `tag releases a model under further tags: it signs a release statement that holds
them, and then moves them. A tag that no release bears is refused by every reader,
since a tag alone is whatever the registry says.`

// tagResult is the JSON form of what tag did.
type tagResult struct {
	Ref    string        `json:"ref"`
	Digest digest.Digest `json:"digest"`
	Tags   []string      `json:"tags"`
}

func (t *tool) tagCommand() *cobra.Command {
	var sign signFlags
	var name string
	c := &cobra.Command{
		Use:     "tag REF@DIGEST TAG… --sign-key F",
		Short:   "Release a model under further tags",
		Long:    tagLong,
		Example: "  modelsec tag registry.example.com/team/llama@sha256:… stable --sign-key signing.key",
		Args:    cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			return t.tag(c.Context(), args[0], args[1:], sign, name)
		},
	}
	sign.define(c, nil)
	c.Flags().StringVar(&name, "name", "", "`name` of the model in its release (default: the path of REF)")
	c.MarkFlagsOneRequired("sign-key", "keyless")
	return c
}

func (t *tool) tag(ctx context.Context, target string, tags []string, sign signFlags, name string) error {
	ref, err := t.pinned(target)
	if err != nil {
		return err
	}
	for _, tag := range tags {
		if _, err := registry.ParseReference(ref.Name + ":" + tag); err != nil {
			return usage(err)
		}
	}
	signer, _, err := sign.load(ctx, t)
	if err != nil {
		return err
	}
	client, done, err := t.client(ref)
	if err != nil {
		return err
	}
	err = client.Tag(ctx, target, modelsec.TagOptions{Signer: signer, Name: name}, tags...)
	done()
	if err != nil {
		return err
	}
	out := tagResult{Ref: ref.String(), Digest: ref.Digest, Tags: tags}
	return t.result(out, func(w io.Writer) {
		for _, tag := range tags {
			fmt.Fprintln(w, registry.Reference{Name: ref.Name, Tag: tag, Digest: ref.Digest})
		}
	})
}

// listingTag matches the tags under which registries without the referrers API
// keep listings, and cosign its attachments. They name no model.
var listingTag = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.(sig|att|sbom))?$`)

// tagsResult is the JSON form of the tags of a repository.
type tagsResult struct {
	Repository string   `json:"repository"`
	Tags       []string `json:"tags"`
}

func (t *tool) tagsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "tags REPO",
		Short: "List the tags of a repository, unverified",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			return t.tags(c.Context(), args[0])
		},
	}
}

func (t *tool) tags(ctx context.Context, repository string) error {
	ref, err := t.reference(repository)
	if err != nil {
		return err
	}
	if ref.Tag != "" || ref.Digest != "" {
		return usagef("%q: want a repository without tag or digest: %s", repository, ref.Name)
	}
	client, err := t.registryClient(ref)
	if err != nil {
		return err
	}
	store, err := client.Open(ctx, ref.Name)
	if err != nil {
		return err
	}
	out := tagsResult{Repository: ref.Name, Tags: []string{}}
	for tag, err := range store.Tags(ctx) {
		if err != nil {
			return err
		}
		if !listingTag.MatchString(tag) {
			out.Tags = append(out.Tags, visible(tag))
		}
	}
	slices.Sort(out.Tags)
	return t.result(out, func(w io.Writer) {
		for _, tag := range out.Tags {
			fmt.Fprintln(w, tag)
		}
	})
}
