// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"sync/atomic"

	"github.com/opencontainers/go-digest"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// server answers from the weights that are current when a request arrives.
type server struct {
	client  *modelsec.Client
	ref     string
	policy  provenance.Policy
	log     *slog.Logger
	metrics *metrics

	current atomic.Pointer[weights] // nil before the first load
}

func newServer(c *modelsec.Client, ref string, policy provenance.Policy, log *slog.Logger) *server {
	s := &server{client: c, ref: ref, policy: policy, log: log}
	s.metrics = newMetrics(ref, &s.current)
	return s
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.with(s.health))
	mux.HandleFunc("GET /tensors", s.with(s.list))
	mux.HandleFunc("GET /tensors/{name...}", s.with(s.describe))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.metrics.registry, promhttp.HandlerOpts{}))
	return mux
}

// with takes the current weights once, so that no request sees two versions.
func (s *server) with(answer func(*weights, http.ResponseWriter, *http.Request)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		current := s.current.Load()
		if current == nil {
			http.Error(w, "no model is loaded yet", http.StatusServiceUnavailable)
			return
		}
		answer(current, w, r)
	}
}

func (s *server) health(current *weights, w http.ResponseWriter, _ *http.Request) {
	s.reply(w, struct {
		Ref    string        `json:"ref"`
		Digest digest.Digest `json:"digest"`
	}{s.ref, current.digest})
}

// tensorEntry is what both listings say of a tensor.
type tensorEntry struct {
	Name  string  `json:"name"`
	DType string  `json:"dtype"`
	Shape []int64 `json:"shape"`
	File  string  `json:"file"`
	Bytes int64   `json:"bytes"`
}

func entry(t modelsec.Tensor) tensorEntry {
	return tensorEntry{t.Name, t.DType, t.Shape, t.File, t.Size}
}

func (s *server) list(current *weights, w http.ResponseWriter, _ *http.Request) {
	out := make([]tensorEntry, len(current.order))
	for i, t := range current.order {
		out[i] = entry(t)
	}
	s.reply(w, out)
}

func (s *server) describe(current *weights, w http.ResponseWriter, r *http.Request) {
	t := current.tensors[r.PathValue("name")]
	if t == nil {
		http.Error(w, "the model has no such tensor", http.StatusNotFound)
		return
	}
	stats, err := summarise(t.DType, t.data)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	s.reply(w, struct {
		Digest digest.Digest `json:"digest"`
		tensorEntry
		Statistics statistics `json:"statistics"`
	}{current.digest, entry(t.Tensor), stats})
}

func (s *server) reply(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		s.log.Error("reply", "error", err.Error())
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(append(b, '\n'))
}
