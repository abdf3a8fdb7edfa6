// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// refusing is a host that refuses connections while it is down.
type refusing struct {
	inProcess
	down  bool
	asked int
}

func (r *refusing) RoundTrip(req *http.Request) (*http.Response, error) {
	r.asked++
	if r.down {
		return nil, syscall.ECONNREFUSED
	}
	return r.inProcess.RoundTrip(req)
}

// TestHostThatNeverAnsweredIsNotAskedForLong: an address where nobody listens
// is reported soon, the restart of a registry that was there is waited for.
func TestHostThatNeverAnsweredIsNotAskedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := &refusing{inProcess: inProcess{ociserver.New()}, down: true}
		c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{"example.com": {Transport: host}}}
		s := open(t, c, "example.com/team/model")
		for _, want := range []int{2, 6} {
			host.down, host.asked = true, 0
			_, err := s.Resolve(t.Context(), "v1")
			var e *registry.Error
			if !errors.Is(err, syscall.ECONNREFUSED) || !errors.As(err, &e) || !e.Temporary() || host.asked != want {
				t.Errorf("got error %v after %d requests, want a temporary one after %d", err, host.asked, want)
			}
			host.down = false
			if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
				t.Errorf("got error %v, want ErrNotFound", err)
			}
		}
	})
}

// TestWaitForAConnectionEndsWithTheContext: the readers that are open hold all
// connections. One that waits for its turn ends when it is told to, and one
// that is closed makes room.
func TestWaitForAConnectionEndsWithTheContext(t *testing.T) {
	c := &registry.Client{Credentials: anonymous, Connections: 1}
	s := open(t, c, serve(t, ociserver.New())+"/team/model")
	d := pushBlob(t, s, pattern(100_000))
	held, err := s.Fetch(t.Context(), d, 0, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error, 1)
	go func() {
		_, err := s.Fetch(ctx, d, 0, d.Size)
		failed <- err
	}()
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want context.Canceled", err)
	}
	for range 2 { // a second Close frees nothing that others hold
		held.Close()
	}
	if _, err := read(t, s, d, 0, d.Size); err != nil {
		t.Error(err)
	}
}

// TestWritersLeaveAConnectionToReaders: whoever creates a writer before he
// fetches what to write gets on, however few connections there are and however
// many do so at once.
func TestWritersLeaveAConnectionToReaders(t *testing.T) {
	for _, connections := range []int{1, 2, 3} {
		c := &registry.Client{Credentials: anonymous, Connections: connections}
		s := open(t, c, serve(t, ociserver.New())+"/team/model")
		d := pushBlob(t, s, pattern(1<<20))
		var copies sync.WaitGroup
		for range 3 * connections {
			copies.Go(func() {
				if err := copyBlob(t.Context(), s, d); err != nil {
					t.Errorf("with %d connections: %v", connections, err)
				}
			})
		}
		copies.Wait()
	}
}

func copyBlob(ctx context.Context, s registry.WriteStore, d ocispec.Descriptor) error {
	w, err := s.Create(ctx, d.Size)
	if err != nil {
		return err
	}
	defer w.Close()
	r, err := s.Fetch(ctx, d, 0, d.Size)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	return w.Commit(ctx, d.Digest)
}
