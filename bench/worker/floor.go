// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The floor asks for ranges of this size over so many connections.
const (
	floorRange       = 16 << 20
	floorConnections = 16
)

type floorJob struct {
	url         string
	file        *os.File
	offset, end int64
}

// floorPull is the least that a client can do: closed ranges over many
// connections, written in place, nothing hashed. What a verified pull takes
// longer is the price of its verification.
func floorPull(ctx context.Context, t task) error {
	repository, manifest, err := orasManifest(ctx, t.ref)
	if err != nil {
		return err
	}
	if err := os.Mkdir(t.dir, 0o755); err != nil {
		return err
	}
	var jobs []floorJob
	for _, l := range manifest.Layers {
		name := l.Annotations[ocispec.AnnotationTitle]
		if name == "" {
			continue
		}
		f, err := os.Create(filepath.Join(t.dir, filepath.Base(name)))
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(l.Size); err != nil {
			return err
		}
		url := fmt.Sprintf("http://%s/v2/%s/blobs/%s", repository.Reference.Host(), repository.Reference.Repository, l.Digest)
		for at := int64(0); at < l.Size; at += floorRange {
			jobs = append(jobs, floorJob{url, f, at, min(at+floorRange, l.Size)})
		}
	}
	return floorRun(ctx, jobs)
}

func floorRun(ctx context.Context, jobs []floorJob) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	client := &http.Client{Transport: &http.Transport{
		Protocols: protocols, DisableCompression: true,
		MaxIdleConnsPerHost: floorConnections, ReadBufferSize: 256 << 10,
	}}
	queue := make(chan floorJob, len(jobs))
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	var streams sync.WaitGroup
	for range min(floorConnections, len(jobs)) {
		streams.Go(func() {
			buf := make([]byte, 1<<20)
			for j := range queue {
				if err := floorFetch(ctx, client, j, buf); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	streams.Wait()
	return context.Cause(ctx)
}

func floorFetch(ctx context.Context, client *http.Client, j floorJob, buf []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", j.offset, j.end-1))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusPartialContent {
		return errors.New(resp.Status)
	}
	for at := j.offset; at < j.end; {
		n, err := io.ReadFull(resp.Body, buf[:min(int64(len(buf)), j.end-at)])
		if err != nil {
			return err
		}
		if _, err := j.file.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

func unmarshal(b []byte, m *ocispec.Manifest) error { return json.Unmarshal(b, m) }
