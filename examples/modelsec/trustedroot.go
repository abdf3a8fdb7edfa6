// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"

	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

const trustedRootLong = `trusted-root fetches the trusted root of a Sigstore instance over TUF, and its
signing configuration where it publishes one, and writes

  trusted_root.json    what readers give to --trusted-root
  signing_config.json  what publishers give to --signing-config

Keep the files where they are reviewed, and fetch again when the instance changes
its keys: no other verb but push, tag and attest with --keyless fetches them, and
verify and pull never do. What is there is overwritten.`

// trustedRootResult is the JSON form of what trusted-root wrote.
type trustedRootResult struct {
	TrustedRoot   string        `json:"trustedRoot"`
	Digest        digest.Digest `json:"digest"`
	SigningConfig string        `json:"signingConfig,omitempty"`
}

func (t *tool) trustedRootCommand() *cobra.Command {
	var dir, repository, root string
	c := &cobra.Command{
		Use:   "trusted-root [--out DIR]",
		Short: "Fetch whom a Sigstore instance says to trust",
		Long:  trustedRootLong,
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return t.trustedRoot(c.Context(), dir, repository, root)
		},
	}
	f := c.Flags()
	f.StringVar(&dir, "out", ".", "`directory` to write to; made if absent")
	f.StringVar(&repository, "tuf-repository", "", "`URL` of the TUF repository (default: that of the public instance)")
	f.StringVar(&root, "tuf-root", "", "TUF root `file` that trust starts from, which the repository's operator hands out")
	c.MarkFlagsRequiredTogether("tuf-repository", "tuf-root")
	return c
}

func (t *tool) trustedRoot(ctx context.Context, dir, repository, root string) error {
	o := &sigstore.FetchOptions{Repository: repository}
	if root != "" {
		var err error
		if o.Root, err = readFile(root, maxRootFile); err != nil {
			return err
		}
	}
	trusted, config, err := sigstore.Fetch(ctx, o)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	out := trustedRootResult{TrustedRoot: filepath.Join(dir, "trusted_root.json"), Digest: digest.FromBytes(trusted)}
	if err := os.WriteFile(out.TrustedRoot, trusted, 0o644); err != nil {
		return err
	}
	if config != nil {
		out.SigningConfig = filepath.Join(dir, "signing_config.json")
		if err := os.WriteFile(out.SigningConfig, config, 0o644); err != nil {
			return err
		}
	}
	return t.result(out, func(w io.Writer) {
		fmt.Fprintln(w, out.TrustedRoot)
		if out.SigningConfig != "" {
			fmt.Fprintln(w, out.SigningConfig)
		}
	})
}
