// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/go-openapi/runtime"
	openapi "github.com/go-openapi/runtime/client"
	"github.com/go-openapi/strfmt"
	protobundle "github.com/sigstore/protobuf-specs/gen/pb-go/bundle/v1"
	protorekor "github.com/sigstore/protobuf-specs/gen/pb-go/rekor/v1"
	rekorv2 "github.com/sigstore/rekor-tiles/v2/pkg/generated/protobuf"
	rekorv1 "github.com/sigstore/rekor/pkg/generated/client"
	"github.com/sigstore/rekor/pkg/generated/client/entries"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/sign"
	"google.golang.org/protobuf/encoding/protojson"
)

// log writes to a transparency log. Nothing is written twice: a log refuses what
// it has, and Sign makes a new signature when it is called again.
type log struct {
	service   root.Service
	transport http.RoundTripper
}

var _ sign.Transparency = log{}

func (l log) GetTransparencyLogEntry(ctx context.Context, keyOrCertificate []byte, b *protobundle.Bundle) error {
	u, err := url.Parse(l.service.URL)
	if err != nil {
		return err
	}
	o := &sign.RekorOptions{BaseURL: l.service.URL, Timeout: requestTimeout, Version: l.service.MajorAPIVersion}
	client := &http.Client{Transport: l.transport, Timeout: requestTimeout}
	if o.Version == 1 {
		path := u.Path
		if path == "" {
			path = rekorv1.DefaultBasePath
		}
		rt := openapi.NewWithClient(u.Host, path, []string{u.Scheme}, client)
		rt.Consumers["application/json"] = runtime.JSONConsumer()
		rt.Producers["application/json"] = runtime.JSONProducer()
		o.Client = checkedClient{entries.New(rt, strfmt.Default)}
	} else {
		o.ClientV2 = writer{client, u.JoinPath("api/v2/log/entries").String()}
	}
	if err := sign.NewRekor(o).GetTransparencyLogEntry(ctx, keyOrCertificate, b); err != nil {
		return fmt.Errorf("log %s: %w", l.service.URL, err)
	}
	return nil
}

// checkedClient is a log of version 1. sigstore-go relies on every member of an
// answer being there.
type checkedClient struct{ inner sign.RekorClient }

func (c checkedClient) CreateLogEntry(p *entries.CreateLogEntryParams, o ...entries.ClientOption) (*entries.CreateLogEntryCreated, error) {
	out, err := c.inner.CreateLogEntry(p, o...)
	if err != nil {
		return nil, err
	}
	return out, checkEntry(out.Payload[out.ETag])
}

func (c checkedClient) GetLogEntryByUUID(p *entries.GetLogEntryByUUIDParams, o ...entries.ClientOption) (*entries.GetLogEntryByUUIDOK, error) {
	out, err := c.inner.GetLogEntryByUUID(p, o...)
	if err != nil {
		return nil, err
	}
	if len(out.Payload) != 1 {
		return nil, fmt.Errorf("%d entries, want 1", len(out.Payload))
	}
	for _, e := range out.Payload {
		err = checkEntry(e)
	}
	return out, err
}

func checkEntry(e models.LogEntryAnon) error {
	if err := e.Validate(strfmt.Default); err != nil {
		return err
	}
	if e.Verification == nil || e.Verification.InclusionProof == nil {
		return errors.New("entry without an inclusion proof")
	}
	return nil
}

// writer is a log of version 2 (rekor-tiles CLIENTS.md). The client that comes
// with it takes no transport.
type writer struct {
	client *http.Client
	url    string
}

func (w writer) Add(ctx context.Context, entry any) (*protorekor.TransparencyLogEntry, error) {
	record, ok := entry.(*rekorv2.HashedRekordRequestV002)
	if !ok {
		return nil, fmt.Errorf("log takes hashedrekord entries only, not %T", entry)
	}
	body, err := protojson.Marshal(&rekorv2.CreateEntryRequest{Spec: &rekorv2.CreateEntryRequest_HashedRekordRequestV002{HashedRekordRequestV002: record}})
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := w.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusCreated {
		return nil, fmt.Errorf("status %d: %.*s", res.StatusCode, maxReason, answer)
	}
	out := &protorekor.TransparencyLogEntry{}
	return out, protojson.Unmarshal(answer, out)
}
