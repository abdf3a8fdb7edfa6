// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"time"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
)

// TestTransfersGiveTheirMemoryBackHoweverTheyEnd: segments pass through memory
// that no collector looks after. Transfers end in a hundred ways, and
// this process has no more of it than before.
func TestTransfersGiveTheirMemoryBackHoweverTheyEnd(t *testing.T) {
	const size = 40 << 20
	bound := int64(48 << 20) // one transfer in five that keeps what it had is too much
	if raceEnabled {
		bound = 512 << 20 // the detector's own memory grows by so much
	}
	p := newParty(t)
	server := must(ociserver.NewDir(t.TempDir()))
	t.Cleanup(func() { server.Close() })
	var damage atomic.Bool
	server.Fault = func(r *http.Request) *ociserver.Fault {
		if damage.Load() && r.Header.Get("Range") != "" && !strings.HasPrefix(r.Header.Get("Range"), "bytes=0-") {
			return &ociserver.Fault{Flip: []int64{100}}
		}
		return nil
	}
	src := fstest.MapFS{"model.safetensors": {Data: bytes.Repeat([]byte("weights!"), size/8)}}
	name := serve(t, server)
	c := p.client(remote()) // one, since idle connections have memory too
	profiles := map[string]func() *modelsec.PushOptions{
		"plain": func() *modelsec.PushOptions { return &modelsec.PushOptions{Signer: p.signer} },
		"encrypted": func() *modelsec.PushOptions {
			return &modelsec.PushOptions{Signer: p.signer, Recipients: p.recipients()}
		},
	}
	for profile, options := range profiles {
		push(t, c, name+":"+profile, src, options())
	}
	pull := func(ctx context.Context, profile string) error {
		_, err := c.Pull(ctx, name+":"+profile, filepath.Join(t.TempDir(), "model"), p.policy(), nil)
		return err
	}
	for how, transfer := range map[string]func(ctx context.Context, profile string) error{
		"pull": pull,
		"push": func(ctx context.Context, profile string) error {
			_, err := c.Push(ctx, name+":again", src, profiles[profile]())
			return err
		},
		"pull of damaged segments": func(ctx context.Context, profile string) error {
			damage.Store(true)
			defer damage.Store(false)
			return pull(ctx, profile)
		},
	} {
		t.Run(how, func(t *testing.T) {
			for profile := range profiles {
				if err := transfer(t.Context(), profile); (err == nil) != (how != "pull of damaged segments") {
					t.Fatalf("%s, %s: %v", how, profile, err)
				}
			}
			before, ends := private(t), make(map[string]int)
			for i := range 16 {
				for profile := range profiles {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*10*time.Millisecond)
					err := transfer(ctx, profile)
					cancel()
					ends[fmt.Sprint(err != nil)]++
				}
			}
			if ends["true"] == 0 {
				t.Error("no transfer was ended")
			}
			if after := private(t); after > before+bound {
				t.Errorf("%d MiB were in use before and %d after", before>>20, after>>20)
			}
		})
	}
}

// private is the memory of this process that no file is behind, in bytes, less
// what the collector could give back.
func private(t *testing.T) int64 {
	t.Helper()
	debug.FreeOSMemory()
	for line := range strings.Lines(string(must(os.ReadFile("/proc/self/status")))) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatal("no RssAnon")
	return 0
}
