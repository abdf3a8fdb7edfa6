// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
)

// Targets of a Sigstore TUF repository.
const (
	rootTarget   = "trusted_root.json"
	configTarget = "signing_config.v0.2.json"
)

// FetchOptions say which instance to fetch from.
type FetchOptions struct {
	// Repository is the URL of the TUF repository. Default: that of the public
	// instance, https://tuf-repo-cdn.sigstore.dev.
	Repository string
	// Root is the TUF root document that trust starts from, which must be given
	// with Repository. Default: that of the public instance, as it was when
	// sigstore-go was released.
	Root []byte
	// Transport makes the requests. Default: http.DefaultTransport.
	Transport http.RoundTripper
}

// Fetch gets the current trusted root of an instance, and the signing
// configuration where it publishes one (else nil), over TUF. Nothing else in this
// package does so, and nothing is kept on disk: store the bytes where verifiers
// read them, and fetch again when the instance changes its keys. Without kept
// state a repository can show metadata that is older than what it showed before,
// until that expires.
func Fetch(ctx context.Context, o *FetchOptions) (trustedRoot, signingConfig []byte, err error) {
	if o == nil {
		o = &FetchOptions{}
	}
	repository, trusted := o.Repository, o.Root
	switch {
	case (repository == "") != (trusted == nil):
		return nil, nil, fmt.Errorf("a TUF repository and its root document belong together: want both or neither")
	case repository == "":
		repository, trusted = tuf.DefaultMirror, tuf.DefaultRoot()
	}
	c, err := config.New(repository, trusted)
	if err != nil {
		return nil, nil, fmt.Errorf("TUF repository %s: %w", repository, err)
	}
	c.DisableLocalCache = true
	c.Fetcher = fetcher{bound(ctx, o.Transport)}
	up, err := updater.New(c)
	if err == nil {
		err = up.Refresh()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("TUF repository %s: %w", repository, err)
	}
	if trustedRoot, err = target(up, rootTarget); err != nil {
		return nil, nil, fmt.Errorf("TUF repository %s: %w", repository, err)
	}
	// GitHub's repository has no configuration: nobody but GitHub signs there.
	if up.GetTopLevelTargets()[configTarget] == nil {
		return trustedRoot, nil, nil
	}
	if signingConfig, err = target(up, configTarget); err != nil {
		return nil, nil, fmt.Errorf("TUF repository %s: %w", repository, err)
	}
	return trustedRoot, signingConfig, nil
}

func target(up *updater.Updater, name string) ([]byte, error) {
	info, err := up.GetTargetInfo(name)
	if err != nil {
		return nil, err
	}
	if info.Length > maxRoot {
		return nil, fmt.Errorf("%s has %d bytes, limit %d", name, info.Length, maxRoot)
	}
	_, b, err := up.DownloadTarget(info, "", "")
	return b, err
}

// fetcher is go-tuf's access to the network.
type fetcher struct{ transport http.RoundTripper }

func (f fetcher) DownloadFile(url string, limit int64, _ time.Duration) ([]byte, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := http.Client{Transport: f.transport, Timeout: requestTimeout}
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		// The updater tells by the type that there is no newer root document.
		return nil, &metadata.ErrDownloadHTTP{StatusCode: res.StatusCode, URL: url}
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("%s has more than %d bytes", url, limit)}
	}
	return b, err
}
