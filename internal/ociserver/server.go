// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package ociserver is a small OCI registry (distribution-spec 1.1) for
// quickstarts and tests. It authenticates nobody. Blobs are streamed in and
// out, so on disk they may be larger than memory; manifests, tags and
// referrers are looked up in the files each time.
//
// A test makes it misbehave with a [Fault] for each request.
package ociserver

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"sync"

	"github.com/opencontainers/go-digest"
)

const (
	maxManifest = 4 << 20
	defaultPage = 100
)

// Server is a registry. Its fields are set before it serves.
type Server struct {
	NoReferrers bool // Hides the referrers API, as older registries do.
	NoDelete    bool // Refuses to delete manifests and blobs.
	PageSize    int  // Entries in one page of tags or referrers; 0: 100.

	// Fault is asked about every request, concurrently. nil, or a nil Fault:
	// the server behaves.
	Fault func(*http.Request) *Fault

	files files

	mu       sync.Mutex
	sessions map[string]*session
	requests map[string]int
	traffic  map[digest.Digest]Traffic
}

// Traffic is what was asked and served of one blob.
type Traffic struct {
	Requests int
	Bytes    int64
}

// New returns a server that keeps everything in memory.
func New() *Server { return newServer(&memoryFiles{files: make(map[string][]byte)}) }

// NewDir returns a server that keeps its content in a directory, which must
// exist. Uploads that were not finished are lost when the server ends. The
// directory is not watched: one server uses it at a time.
func NewDir(dir string) (*Server, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return newServer(diskFiles{root}), nil
}

func newServer(f files) *Server {
	return &Server{
		files:    f,
		sessions: make(map[string]*session),
		requests: make(map[string]int),
		traffic:  make(map[digest.Digest]Traffic),
	}
}

// Close releases the directory.
func (s *Server) Close() error {
	if d, ok := s.files.(diskFiles); ok {
		return d.root.Close()
	}
	return nil
}

// Requests returns how many requests of a kind were served, such as
// "GET blob", "PATCH upload", "PUT manifest", "GET referrers", "GET tags".
func (s *Server) Requests(kind string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests[kind]
}

// Traffic returns the GET requests for a blob so far and the bytes of their
// bodies.
func (s *Server) Traffic(d digest.Digest) Traffic {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic[d]
}

var routes = []struct {
	kind    string
	pattern *regexp.Regexp
	handle  func(*Server, http.ResponseWriter, *http.Request, string, string)
}{
	{"upload", regexp.MustCompile(`^/v2/(.+)/blobs/uploads/([^/]*)$`), (*Server).upload},
	{"blob", regexp.MustCompile(`^/v2/(.+)/blobs/([^/]+)$`), (*Server).blob},
	{"manifest", regexp.MustCompile(`^/v2/(.+)/manifests/([^/]+)$`), (*Server).manifest},
	{"referrers", regexp.MustCompile(`^/v2/(.+)/referrers/([^/]+)$`), (*Server).referrers},
	{"tags", regexp.MustCompile(`^/v2/(.+)/(tags)/list$`), (*Server).tags},
}

var repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Fault != nil {
		if f := s.Fault(r); f != nil {
			f.Serve(w, r, http.HandlerFunc(s.serve))
			return
		}
	}
	s.serve(w, r)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" || r.URL.Path == "/v2" {
		w.WriteHeader(http.StatusOK)
		return
	}
	for _, route := range routes {
		m := route.pattern.FindStringSubmatch(r.URL.Path)
		if m == nil {
			continue
		}
		if !repositoryPattern.MatchString(m[1]) {
			refuse(w, http.StatusBadRequest, "NAME_INVALID", "repository name")
			return
		}
		s.mu.Lock()
		s.requests[r.Method+" "+route.kind]++
		s.mu.Unlock()
		route.handle(s, w, r, m[1], m[2])
		return
	}
	http.NotFound(w, r)
}

// refuse answers with an error as the specification has it.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type item struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string][]item{"errors": {{code, message}}})
}

func failed(w http.ResponseWriter, err error) {
	refuse(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
}

func parseDigest(w http.ResponseWriter, s string) (digest.Digest, bool) {
	d := digest.Digest(s)
	if d.Validate() != nil || d.Algorithm() != digest.SHA256 {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("%q is not a sha256 digest", s))
		return "", false
	}
	return d, true
}
