// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package ociserver

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var tagPattern = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

// A manifest is two files, its bytes and its media type; a tag is a file that
// holds a digest. No part of a repository's name begins with an underscore.
func manifestName(repository string, d digest.Digest) string {
	return repository + "/_manifests/" + d.Encoded()
}

func typeName(repository string, d digest.Digest) string {
	return repository + "/_types/" + d.Encoded()
}

func tagName(repository, tag string) string { return repository + "/_tags/" + tag }

func (s *Server) read(name string) ([]byte, error) {
	f, err := s.files.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// replace writes a small file whole.
func (s *Server) replace(name string, b []byte) error {
	temporary := "_uploads/" + rand.Text()
	f, err := s.files.appendTo(temporary)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = s.files.rename(temporary, name)
	}
	return err
}

func (s *Server) lookup(repository, reference string) (digest.Digest, error) {
	if tagPattern.MatchString(reference) {
		b, err := s.read(tagName(repository, reference))
		return digest.Digest(b), err
	}
	d := digest.Digest(reference)
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		return "", fs.ErrNotExist
	}
	return d, nil
}

func (s *Server) manifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		s.getManifest(w, r, repository, reference)
	case http.MethodPut:
		s.putManifest(w, r, repository, reference)
	case http.MethodDelete:
		s.deleteManifest(w, repository, reference)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", r.Method)
	}
}

func (s *Server) getManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	var b, mediaType []byte
	d, err := s.lookup(repository, reference)
	if err == nil {
		b, err = s.read(manifestName(repository, d))
	}
	if err == nil {
		mediaType, err = s.read(typeName(repository, d))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", reference)
		return
	case err != nil:
		failed(w, err)
		return
	}
	w.Header().Set("Content-Type", string(mediaType))
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	if r.Method == http.MethodGet {
		w.Write(b)
	}
}

// parsed is what the server looks at in a manifest.
type parsed struct {
	ArtifactType string                      `json:"artifactType"`
	Config       *struct{ MediaType string } `json:"config"`
	Subject      *ocispec.Descriptor         `json:"subject"`
	Annotations  map[string]string           `json:"annotations"`
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, repository, reference string) {
	b, err := io.ReadAll(io.LimitReader(r.Body, maxManifest+1))
	if err != nil {
		return
	}
	if len(b) > maxManifest {
		refuse(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", "manifest")
		return
	}
	var m parsed
	if err := json.Unmarshal(b, &m); err != nil {
		refuse(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	d := digest.FromBytes(b)
	tagged := tagPattern.MatchString(reference)
	if !tagged && reference != d.String() {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", reference)
		return
	}
	err = s.replace(typeName(repository, d), []byte(r.Header.Get("Content-Type")))
	if err == nil {
		err = s.replace(manifestName(repository, d), b)
	}
	if err == nil && tagged {
		err = s.replace(tagName(repository, reference), []byte(d))
	}
	if err != nil {
		failed(w, err)
		return
	}
	if m.Subject != nil && !s.NoReferrers {
		w.Header().Set("OCI-Subject", m.Subject.Digest.String())
	}
	w.Header().Set("Location", "/v2/"+repository+"/manifests/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}

func (s *Server) deleteManifest(w http.ResponseWriter, repository, reference string) {
	if tagPattern.MatchString(reference) {
		s.remove(w, tagName(repository, reference), "MANIFEST_UNKNOWN")
		return
	}
	d, ok := parseDigest(w, reference)
	if !ok {
		return
	}
	if !s.NoDelete {
		tags, err := s.files.list(repository + "/_tags")
		if err != nil {
			failed(w, err)
			return
		}
		for _, tag := range tags {
			if b, err := s.read(tagName(repository, tag)); err == nil && string(b) == reference {
				s.files.remove(tagName(repository, tag))
			}
		}
	}
	s.remove(w, manifestName(repository, d), "MANIFEST_UNKNOWN")
}

func (s *Server) referrers(w http.ResponseWriter, r *http.Request, repository, subject string) {
	if s.NoReferrers {
		http.NotFound(w, r)
		return
	}
	if _, ok := parseDigest(w, subject); !ok {
		return
	}
	names, err := s.files.list(repository + "/_manifests")
	if err != nil {
		failed(w, err)
		return
	}
	filter := r.URL.Query().Get("artifactType")
	var found []ocispec.Descriptor
	for _, name := range names {
		d := digest.NewDigestFromEncoded(digest.SHA256, name)
		b, err := s.read(manifestName(repository, d))
		var m parsed
		if err != nil || json.Unmarshal(b, &m) != nil || m.Subject == nil || m.Subject.Digest.String() != subject {
			continue
		}
		mediaType, err := s.read(typeName(repository, d))
		if err != nil {
			continue
		}
		if m.ArtifactType == "" && m.Config != nil {
			m.ArtifactType = m.Config.MediaType
		}
		if filter == "" || filter == m.ArtifactType {
			found = append(found, ocispec.Descriptor{MediaType: string(mediaType), Digest: d, Size: int64(len(b)), ArtifactType: m.ArtifactType, Annotations: m.Annotations})
		}
	}
	if filter != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	found = page(s, w, r, found, func(d ocispec.Descriptor) string { return d.Digest.String() })
	if found == nil {
		found = []ocispec.Descriptor{}
	}
	w.Header().Set("Content-Type", ocispec.MediaTypeImageIndex)
	json.NewEncoder(w).Encode(ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: found})
}

func (s *Server) tags(w http.ResponseWriter, r *http.Request, repository, _ string) {
	tags, err := s.files.list(repository + "/_tags")
	if err != nil {
		failed(w, err)
		return
	}
	tags = page(s, w, r, tags, strings.Clone)
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"name": repository, "tags": tags})
}

// page cuts sorted items down to those that a request asks for, and links to
// the rest.
func page[T any](s *Server, w http.ResponseWriter, r *http.Request, items []T, key func(T) string) []T {
	query := r.URL.Query()
	size := s.PageSize
	if size <= 0 {
		size = defaultPage
	}
	if n, err := strconv.Atoi(query.Get("n")); err == nil && n > 0 {
		size = min(size, n)
	}
	if last := query.Get("last"); last != "" {
		items = slices.DeleteFunc(items, func(item T) bool { return key(item) <= last })
	}
	if len(items) > size {
		items = items[:size]
		query.Set("last", key(items[size-1]))
		next := url.URL{Path: r.URL.Path, RawQuery: query.Encode()}
		w.Header().Set("Link", fmt.Sprintf(`<%s>; rel="next"`, next.String()))
	}
	return items
}
