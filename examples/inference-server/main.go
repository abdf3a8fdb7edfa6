// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Inference-server is the frame of a server around attested weights: it opens a
// model under a policy, loads its tensors from the registry into memory without
// a file, and takes up a new attested version while requests are served.
//
//	inference-server --model registry.example.com/team/llama:stable
//
// It answers
//
//	/healthz         200 with the digest that is served; 503 before the first load
//	/tensors         the names, types and shapes as JSON
//	/tensors/{name}  statistics over the elements of one tensor
//	/metrics         for Prometheus
//
// Every --interval it asks what the tag names. Another digest is opened under
// the same policy and loaded beside the one that is served; only when all of it
// was verified do new requests see it, while running ones end on the old one. A
// version that is refused is logged and counted, and changes nothing. For the
// time of a load, memory holds two versions.
//
// Whom it trusts and what opens the model comes from the environment:
// MODELSEC_POLICY or MODELSEC_KEY, and MODELSEC_IDENTITY, as package podenv
// says.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/modelsec/modelsec-go/examples/internal/podenv"
	"github.com/modelsec/modelsec-go/modelsec"
)

// shutdownGrace is how long running requests may take when the server stops.
const shutdownGrace = 20 * time.Second

func main() {
	ref := flag.String("model", "", "reference of the model, with a tag to follow")
	listen := flag.String("listen", "127.0.0.1:8080", "address to serve on")
	interval := flag.Duration("interval", 30*time.Second, "how often to look for a new version")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	if err := run(ctx, *ref, *listen, *interval, log); err != nil {
		log.Error("server ends", "error", err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, ref, listen string, interval time.Duration, log *slog.Logger) error {
	if ref == "" || interval <= 0 {
		return errors.New("want --model REF and an --interval above zero")
	}
	policy, err := podenv.Policy(os.Getenv)
	if err != nil {
		return err
	}
	identities, err := podenv.Identities(ctx, os.Getenv)
	if err != nil {
		return err
	}
	s := newServer(&modelsec.Client{Identities: identities, Logger: log}, ref, policy, log)
	listener, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	front := &http.Server{Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- front.Serve(listener) }()
	log.Info("listening", "address", listener.Addr().String())

	followed := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { followed <- s.follow(ctx, interval) }()
	select {
	case err = <-served:
		cancel()
		<-followed
		return err
	case err = <-followed:
	}
	grace, end := context.WithTimeout(context.Background(), shutdownGrace)
	defer end()
	if shutdown := front.Shutdown(grace); shutdown != nil {
		err = errors.Join(err, fmt.Errorf("requests were cut off: %w", shutdown))
	}
	return err
}
