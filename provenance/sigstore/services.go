// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
)

// services are those that one signature is made with.
type services struct {
	authority string // certificate authority; empty for keys
	logs      []root.Service
	stampers  []root.Service
}

// chooseServices applies the selection rules of the configuration.
func chooseServices(config *root.SigningConfig, keyless bool, now time.Time) (services, error) {
	var s services
	if keyless {
		authority, err := root.SelectService(config.FulcioCertificateAuthorityURLs(), sign.FulcioAPIVersions, now)
		if err != nil {
			return s, fmt.Errorf("signing configuration: certificate authority: %w", err)
		}
		s.authority = authority.URL
	}
	var err error
	if all := config.RekorLogURLs(); len(all) > 0 {
		if s.logs, err = root.SelectServices(all, config.RekorLogURLsConfig(), sign.RekorAPIVersions, now); err != nil {
			return s, fmt.Errorf("signing configuration: log: %w", err)
		}
	}
	if all := config.TimestampAuthorityURLs(); len(all) > 0 {
		if s.stampers, err = root.SelectServices(all, config.TimestampAuthorityURLsConfig(), sign.TimestampAuthorityAPIVersions, now); err != nil {
			return s, fmt.Errorf("signing configuration: timestamp authority: %w", err)
		}
	}
	switch {
	case len(s.logs)+len(s.stampers) == 0:
		return s, errors.New("signing configuration: neither a log nor a timestamp authority")
	case keyless && len(s.stampers) == 0 && s.logs[0].MajorAPIVersion > 1:
		return s, errors.New("signing configuration: logs of version 2 prove no time: want a timestamp authority as well")
	}
	return s, nil
}

func (s services) options(ctx context.Context, transport http.RoundTripper) sign.BundleOptions {
	inner := bound(ctx, transport)
	o := sign.BundleOptions{Context: ctx}
	if s.authority != "" {
		o.CertificateProvider = sign.NewFulcio(&sign.FulcioOptions{BaseURL: s.authority, Timeout: requestTimeout, Retries: retries, Transport: inner})
	}
	for _, t := range s.stampers {
		o.TimestampAuthorities = append(o.TimestampAuthorities,
			sign.NewTimestampAuthority(&sign.TimestampAuthorityOptions{URL: t.URL, Timeout: requestTimeout, Retries: retries, Transport: inner}))
	}
	for _, l := range s.logs {
		o.TransparencyLogs = append(o.TransparencyLogs, log{service: l, transport: inner})
	}
	return o
}

// String names the services in errors.
func (s services) String() string {
	var names []string
	if s.authority != "" {
		names = append(names, s.authority)
	}
	for _, list := range [][]root.Service{s.logs, s.stampers} {
		for _, service := range list {
			names = append(names, service.URL)
		}
	}
	return strings.Join(names, ", ")
}
