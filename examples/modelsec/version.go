// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/fips140"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionResult is the JSON form of what this program is.
type versionResult struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
	FIPS     string `json:"fips140"` // off, on or enforced
}

func (t *tool) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say what this program is",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			out := buildVersion()
			return t.result(out, func(w io.Writer) {
				fmt.Fprintf(w, "modelsec %s", out.Version)
				if out.Revision != "" {
					fmt.Fprintf(w, " (%s)", out.Revision)
				}
				fmt.Fprintf(w, " %s %s, FIPS 140-3 %s\n", out.Go, out.Platform, out.FIPS)
			})
		},
	}
}

func buildVersion() versionResult {
	out := versionResult{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, FIPS: fipsMode()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if info.Main.Version != "" {
			out.Version = info.Main.Version
		}
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				out.Revision = s.Value
			}
		}
	}
	return out
}

func fipsMode() string {
	switch {
	case fips140.Enforced():
		return "enforced"
	case fips140.Enabled():
		return "on"
	}
	return "off"
}
