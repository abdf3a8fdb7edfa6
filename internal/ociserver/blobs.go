// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package ociserver

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

func blobName(repository string, d digest.Digest) string {
	return repository + "/_blobs/" + d.Encoded()
}

func (s *Server) blob(w http.ResponseWriter, r *http.Request, repository, name string) {
	d, ok := parseDigest(w, name)
	if !ok {
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	case http.MethodDelete:
		s.remove(w, blobName(repository, d), "BLOB_UNKNOWN")
		return
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", r.Method)
		return
	}
	f, err := s.files.open(blobName(repository, d))
	if errors.Is(err, fs.ErrNotExist) {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", name)
		return
	}
	if err != nil {
		failed(w, err)
		return
	}
	defer f.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Docker-Content-Digest", d.String())
	w.Header().Set("Etag", `"`+d.String()+`"`)
	counted := &countingWriter{ResponseWriter: w}
	http.ServeContent(counted, r, "", time.Time{}, f)
	if r.Method == http.MethodGet {
		s.mu.Lock()
		t := s.traffic[d]
		s.traffic[d] = Traffic{t.Requests + 1, t.Bytes + counted.n}
		s.mu.Unlock()
	}
}

type countingWriter struct {
	http.ResponseWriter
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p)
	c.n += int64(n)
	return n, err
}

func (s *Server) remove(w http.ResponseWriter, name, unknown string) {
	if s.NoDelete {
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "deletion is disabled")
		return
	}
	err := s.files.remove(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		refuse(w, http.StatusNotFound, unknown, "not here")
	case err != nil:
		failed(w, err)
	default:
		w.WriteHeader(http.StatusAccepted)
	}
}

// session is an upload in progress.
type session struct {
	id         string
	repository string

	mu   sync.Mutex // held while a request writes
	size int64
	hash hash.Hash
}

func (u *session) file() string { return "_uploads/" + u.id }

func (s *Server) upload(w http.ResponseWriter, r *http.Request, repository, id string) {
	if r.Method == http.MethodPost && id == "" {
		s.begin(w, r, repository)
		return
	}
	s.mu.Lock()
	u := s.sessions[id]
	s.mu.Unlock()
	if u == nil || u.repository != repository {
		refuse(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", id)
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		u.report(w, http.StatusNoContent)
	case http.MethodPatch:
		if s.receive(w, r, u) {
			u.report(w, http.StatusAccepted)
		}
	case http.MethodPut:
		if s.receive(w, r, u) {
			s.commit(w, u, r.URL.Query().Get("digest"))
		}
	case http.MethodDelete:
		s.end(u)
		s.files.remove(u.file())
		w.WriteHeader(http.StatusNoContent)
	default:
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", r.Method)
	}
}

func (s *Server) begin(w http.ResponseWriter, r *http.Request, repository string) {
	query := r.URL.Query()
	if mount, from := query.Get("mount"), query.Get("from"); mount != "" && repositoryPattern.MatchString(from) {
		d, ok := parseDigest(w, mount)
		if !ok {
			return
		}
		if s.files.link(blobName(from, d), blobName(repository, d)) == nil {
			created(w, repository, d)
			return
		}
	}
	u := &session{id: rand.Text(), repository: repository, hash: sha256.New()}
	f, err := s.files.appendTo(u.file())
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		failed(w, err)
		return
	}
	s.mu.Lock()
	s.sessions[u.id] = u
	s.mu.Unlock()
	if d := query.Get("digest"); d != "" {
		if s.receive(w, r, u) {
			s.commit(w, u, d)
		}
		return
	}
	u.report(w, http.StatusAccepted)
}

func (s *Server) end(u *session) {
	s.mu.Lock()
	delete(s.sessions, u.id)
	s.mu.Unlock()
}

func (u *session) report(w http.ResponseWriter, status int) {
	w.Header().Set("Location", "/v2/"+u.repository+"/blobs/uploads/"+u.id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(u.size-1, 0)))
	w.WriteHeader(status)
}

var contentRange = regexp.MustCompile(`^([0-9]+)-[0-9]+$`)

// receive appends the body. What came before a broken connection is kept, so
// that a client can go on from there.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, u *session) bool {
	if value := r.Header.Get("Content-Range"); value != "" {
		m := contentRange.FindStringSubmatch(value)
		if m == nil {
			refuse(w, http.StatusBadRequest, "BLOB_UPLOAD_INVALID", "Content-Range")
			return false
		}
		if start, err := strconv.ParseInt(m[1], 10, 64); err != nil || start != u.size {
			u.report(w, http.StatusRequestedRangeNotSatisfiable)
			return false
		}
	}
	f, err := s.files.appendTo(u.file())
	if err != nil {
		failed(w, err)
		return false
	}
	n, err := io.Copy(io.MultiWriter(f, u.hash), r.Body)
	u.size += n
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		failed(w, err)
		return false
	}
	return true
}

func (s *Server) commit(w http.ResponseWriter, u *session, want string) {
	d, ok := parseDigest(w, want)
	if !ok {
		return
	}
	if got := digest.NewDigest(digest.SHA256, u.hash); got != d {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "content has digest "+got.String())
		return
	}
	s.end(u)
	if err := s.files.rename(u.file(), blobName(u.repository, d)); err != nil {
		failed(w, err)
		return
	}
	created(w, u.repository, d)
}

func created(w http.ResponseWriter, repository string, d digest.Digest) {
	w.Header().Set("Location", "/v2/"+repository+"/blobs/"+d.String())
	w.Header().Set("Docker-Content-Digest", d.String())
	w.WriteHeader(http.StatusCreated)
}
