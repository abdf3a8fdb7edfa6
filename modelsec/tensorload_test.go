// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

func alloc(t modelsec.Tensor) ([]byte, error) { return make([]byte, t.Size), nil }

// arena gives memory that is not zero, and remembers it.
type arena struct {
	tensors []modelsec.Tensor
	bufs    [][]byte

	mu   sync.Mutex
	done map[*byte]int // how often Done received the memory
}

func (a *arena) sink() modelsec.TensorSink {
	a.done = make(map[*byte]int)
	return modelsec.TensorSink{
		Alloc: func(t modelsec.Tensor) ([]byte, error) {
			b := bytes.Repeat([]byte{0xee}, int(t.Size))
			a.tensors, a.bufs = append(a.tensors, t), append(a.bufs, b)
			return b, nil
		},
		Done: func(t modelsec.Tensor, b []byte) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			if len(b) > 0 {
				a.done[&b[0]]++
			}
			return nil
		},
	}
}

// slice cuts what a file has of a tensor as Slice does, element by element.
func sliced(b []byte, shape []int64, dim int, from, to int64) []byte {
	inner := int64(1)
	for _, n := range shape[dim+1:] {
		inner *= n
	}
	row := shape[dim] * inner
	var out []byte
	for at := int64(0); at < int64(len(b)); at += row {
		out = append(out, b[at+from*inner:at+to*inner]...)
	}
	return out
}

func TestLoadTensorsLoadsAll(t *testing.T) {
	src := tensorModel()
	opened(t, src, nil, func(t *testing.T, m *modelsec.Model) {
		var a arena
		if err := m.LoadTensors(t.Context(), nil, a.sink()); err != nil {
			t.Fatal(err)
		}
		if len(a.tensors) != 10 {
			t.Errorf("%d tensors", len(a.tensors))
		}
		for i, x := range a.tensors {
			if !bytes.Equal(a.bufs[i], bytesOf(src, x)) {
				t.Errorf("tensor %q of %q differs from its file", x.Name, x.File)
			}
			if x.Size > 0 && a.done[&a.bufs[i][0]] != 1 {
				t.Errorf("tensor %q was done %d times", x.Name, a.done[&a.bufs[i][0]])
			}
		}
	})
}

// counter is a store that counts what is asked of content layers.
type counter struct {
	*evil
	requests atomic.Int64
}

func newCounter(o registry.Opener) *counter {
	c := &counter{evil: &evil{Opener: o}}
	c.before = func(_ context.Context, op, _ string) error {
		if op == "fetch" {
			c.requests.Add(1)
		}
		return nil
	}
	return c
}

// took returns what f asks for.
func (c *counter) took(f func()) (requests int, bytes int64) {
	requests, bytes = int(c.requests.Load()), c.fetched.Load()
	f()
	return int(c.requests.Load()) - requests, c.fetched.Load() - bytes
}

// TestCostIsWhatTheServerCounts loads sets of tensors and slices, some of them
// twice. Each asks for what Cost said, and the registry counts the same in all:
// every segment that a set touches is sent once, and no other.
func TestCostIsWhatTheServerCounts(t *testing.T) {
	p := newParty(t)
	src := tensorModel()
	for name, options := range p.profiles() {
		for _, layer := range []int64{0, 2 * segment} {
			t.Run(fmt.Sprintf("%s/%d", name, layer), func(t *testing.T) {
				server := ociserver.New()
				h := httptest.NewServer(server)
				defer h.Close()
				ref := strings.TrimPrefix(h.URL, "http://") + "/team/llama"
				o := options()
				o.LayerSize = layer
				d := push(t, p.client(remote()), ref+":v3", src, o)
				manifest := openShelf(t, remote(), ref).manifest(d)
				counting := newCounter(remote())
				m := must(p.client(counting).Open(t.Context(), ref+":v3", p.policy()))
				defer m.Close()
				var requests int
				var size int64
				counted := func(wantRequests int, wantSize int64, f func()) {
					gotRequests, gotSize := counting.took(f)
					if gotRequests != wantRequests || gotSize != wantSize {
						t.Errorf("%d requests for %d bytes, Cost said %d for %d", gotRequests, gotSize, wantRequests, wantSize)
					}
					requests, size = requests+gotRequests, size+gotSize
				}
				var list []modelsec.Tensor
				headers, headerSize := counting.took(func() { list = tensorsOf(t, m) })
				requests, size = requests+headers, size+headerSize
				for seed := range uint64(30) {
					want, contents := randomTensors(src, list, seed)
					n, bytesSaid, err := m.Cost(t.Context(), want)
					if err != nil {
						t.Fatal(err)
					}
					var a arena
					counted(n, bytesSaid, func() {
						if err := m.LoadTensors(t.Context(), want, a.sink()); err != nil {
							t.Fatal(err)
						}
					})
					for i, b := range contents {
						if !bytes.Equal(a.bufs[i], b) {
							t.Errorf("seed %d: tensor %q %d differs", seed, want[i].Name, want[i].Shape)
						}
					}
				}
				h.Close() // when it returns all was counted
				for _, l := range manifest.Layers[:len(manifest.Layers)-1] {
					n := server.Traffic(l.Digest)
					requests, size = requests-n.Requests, size-n.Bytes
				}
				if requests != 0 || size != 0 {
					t.Errorf("%d requests and %d bytes more than the server counted", requests, size)
				}
			})
		}
	}
}

// randomTensors picks some tensors, cuts some of them, and returns what the
// files have of each.
func randomTensors(src fstest.MapFS, list []modelsec.Tensor, seed uint64) (want []modelsec.Tensor, contents [][]byte) {
	random := rand.New(rand.NewPCG(seed, 1))
	for range 1 + random.IntN(4) {
		x := list[random.IntN(len(list))]
		b := bytesOf(src, x)
		for range random.IntN(3) {
			dim := random.IntN(len(x.Shape))
			if x.DType != "U8" || x.Shape[dim] == 0 {
				continue
			}
			from := random.Int64N(x.Shape[dim])
			to := from + random.Int64N(x.Shape[dim]-from+1)
			b = sliced(b, x.Shape, dim, from, to)
			x = must(x.Slice(dim, from, to))
		}
		want, contents = append(want, x), append(contents, b)
	}
	return want, contents
}

// TestLoadTensorsFetchesOneSegmentForItsTensors: two small tensors and a slice
// that lie in one segment cost one request for one segment.
func TestLoadTensorsFetchesOneSegmentForItsTensors(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, tensorModel(), p.options(p.recipients()))
	counting := newCounter(memory)
	m := must(p.client(counting).Open(t.Context(), tagged, p.policy()))
	defer m.Close()
	embed := tensorNamed(t, m, "embed")
	want := []modelsec.Tensor{must(embed.Slice(0, 98, 100)), tensorNamed(t, m, "b"), must(embed.Slice(0, 99, 100))}
	requests, size := counting.took(func() {
		if err := m.LoadTensors(t.Context(), want, modelsec.TensorSink{Alloc: alloc}); err != nil {
			t.Error(err)
		}
	})
	if requests != 1 || size != segment+encrypt.SegmentOverhead {
		t.Errorf("%d requests for %d bytes, want 1 for %d", requests, size, segment+encrypt.SegmentOverhead)
	}
}

// TestFailedLoadLeavesZeros is K45, and that what Done received is left alone.
func TestFailedLoadLeavesZeros(t *testing.T) {
	p := newParty(t)
	src := model(map[string][]byte{"model.safetensors": tensorFile(1, weights{"a", []int64{1000}}, weights{"b", []int64{40 * segment}})})
	for name, options := range p.profiles() {
		t.Run(name, func(t *testing.T) {
			memory := registry.NewMemory()
			d := push(t, p.client(memory), tagged, src, options())
			l := openShelf(t, memory, repository).manifest(d).Layers[0]
			inBubble(t, func(t *testing.T) {
				bad := &evil{Opener: memory, content: func(d ocispec.Descriptor, b []byte) []byte {
					if d.Digest == l.Digest {
						b = bytes.Clone(b)
						b[head(l)+30*stride(l)+9] ^= 1
					}
					return b
				}}
				m := must(p.client(bad).Open(t.Context(), tagged, p.policy()))
				defer m.Close()
				var a arena
				err := m.LoadTensors(t.Context(), nil, a.sink())
				refused(t, err, modelsec.ErrDigest)
				contains(t, err, "load registry.example.com", "segment 30", `"model.safetensors"`)
				if a.done[&a.bufs[1][0]] != 0 || !bytes.Equal(a.bufs[1], make([]byte, len(a.bufs[1]))) {
					t.Error("a tensor that failed is not zero")
				}
				if a.done[&a.bufs[0][0]] == 1 && !bytes.Equal(a.bufs[0], bytesOf(src, a.tensors[0])) {
					t.Error("a tensor that was handed over was changed")
				}
			})
		})
	}
}

func TestSinkEndsALoad(t *testing.T) {
	broken := errors.New("out of device memory")
	src := tensorModel()
	// Errors that a fetch would take for a reason to ask again, too.
	for _, cause := range []error{broken, io.EOF, io.ErrUnexpectedEOF, modelsec.ErrDigest, fs.ErrClosed} {
		opened(t, src, nil, func(t *testing.T, m *modelsec.Model) {
			for name, change := range map[string]func(s *modelsec.TensorSink){
				"alloc": func(s *modelsec.TensorSink) {
					alloc := s.Alloc
					s.Alloc = func(t modelsec.Tensor) ([]byte, error) {
						if t.Name == "head" {
							return nil, cause
						}
						return alloc(t)
					}
				},
				"done": func(s *modelsec.TensorSink) {
					var failed atomic.Int64
					s.Done = func(x modelsec.Tensor, b []byte) error {
						if x.Name != "experts" {
							return nil
						}
						if failed.Add(1) > 1 {
							t.Error("a tensor was done twice")
						}
						return cause
					}
				},
				"done with nothing": func(s *modelsec.TensorSink) {
					s.Done = func(x modelsec.Tensor, b []byte) error {
						if x.Name == "empty" {
							return cause
						}
						return nil
					}
				},
			} {
				t.Run(name, func(t *testing.T) {
					var a arena
					s := a.sink()
					change(&s)
					err := m.LoadTensors(t.Context(), nil, s)
					refused(t, err, cause)
					contains(t, err, `tensor "`)
				})
			}
		})
	}
}

// TestSinkThatPanics: the panic arrives where LoadTensors was called, after all
// goroutines ended, and leaves zeros.
func TestSinkThatPanics(t *testing.T) {
	opened(t, tensorModel(), nil, func(t *testing.T, m *modelsec.Model) {
		var a arena
		s := a.sink()
		s.Done = func(x modelsec.Tensor, b []byte) error {
			if x.Name == "experts" {
				panic("a bug of the sink")
			}
			return nil
		}
		defer func() {
			if v := recover(); v != "a bug of the sink" {
				t.Errorf("got %v", v)
			}
			for i, x := range a.tensors {
				if x.Name == "head" && bytes.Contains(a.bufs[i], []byte{0xee, 0xee, 0xee, 0xee, 0xee, 0xee}) {
					t.Error("memory was left as it was")
				}
			}
		}()
		m.LoadTensors(t.Context(), nil, s)
	})
}

func TestLoadTensorsRefusesWhatIsNotThere(t *testing.T) {
	opened(t, tensorModel(), nil, func(t *testing.T, m *modelsec.Model) {
		whole := tensorNamed(t, m, "head")
		part := must(whole.Slice(1, 3, 5))
		change := func(x modelsec.Tensor, f func(x *modelsec.Tensor)) modelsec.Tensor {
			f(&x)
			return x
		}
		for name, x := range map[string]modelsec.Tensor{
			"no file":          {Name: "x", Size: 1},
			"unknown file":     change(whole, func(x *modelsec.Tensor) { x.File = "other.safetensors" }),
			"another file":     change(whole, func(x *modelsec.Tensor) { x.File = "config.json" }),
			"negative offset":  change(whole, func(x *modelsec.Tensor) { x.Offset = -1 }),
			"negative size":    change(whole, func(x *modelsec.Tensor) { x.Size = -1 }),
			"behind the end":   change(whole, func(x *modelsec.Tensor) { x.Offset++ }),
			"overflow":         change(whole, func(x *modelsec.Tensor) { x.Offset, x.Size = 1<<63-1, 1<<63-1 }),
			"slice moved":      change(part, func(x *modelsec.Tensor) { x.Offset++ }),
			"slice made large": change(part, func(x *modelsec.Tensor) { x.Size++ }),
			"slice elsewhere":  change(part, func(x *modelsec.Tensor) { x.File = "config.json" }),
			"slice of a moved": must(change(whole, func(x *modelsec.Tensor) { x.Offset = 1 << 62 }).Slice(1, 3, 5)),
		} {
			t.Run(name, func(t *testing.T) {
				refused(t, m.LoadTensors(t.Context(), []modelsec.Tensor{x}, modelsec.TensorSink{Alloc: alloc}), modelsec.ErrConfig)
				_, _, err := m.Cost(t.Context(), []modelsec.Tensor{x})
				refused(t, err, modelsec.ErrConfig)
			})
		}
		wrong := modelsec.TensorSink{Alloc: func(t modelsec.Tensor) ([]byte, error) { return make([]byte, t.Size+1), nil }}
		refused(t, m.LoadTensors(t.Context(), nil, wrong), modelsec.ErrConfig)
		refused(t, m.LoadTensors(t.Context(), nil, modelsec.TensorSink{}), modelsec.ErrConfig)
		if err := m.LoadTensors(t.Context(), []modelsec.Tensor{}, modelsec.TensorSink{Alloc: alloc}); err != nil {
			t.Errorf("no tensors: %v", err)
		}
	})
	opened(t, model(map[string][]byte{"config.json": []byte("{}")}), nil, func(t *testing.T, m *modelsec.Model) {
		if list := tensorsOf(t, m); len(list) != 0 {
			t.Errorf("got %v", list)
		}
		refused(t, m.LoadTensors(t.Context(), nil, modelsec.TensorSink{Alloc: alloc}), modelsec.ErrConfig)
	})
}

// TestLoadIsRecorded is K44: an intent before the first byte and one outcome.
func TestLoadIsRecorded(t *testing.T) {
	var events []modelsec.Event
	var fail atomic.Bool
	change := func(c *modelsec.Client, _ *modelsec.PushOptions) {
		c.Hooks.Audit = func(_ context.Context, e modelsec.Event) error {
			if e.Op == "load" || e.Op == "tensors" {
				events = append(events, e)
				if fail.Load() {
					return errors.New("no room")
				}
			}
			return nil
		}
	}
	opened(t, tensorModel(), change, func(t *testing.T, m *modelsec.Model) {
		events = nil
		fail.Store(false)
		head := tensorNamed(t, m, "head")
		if err := m.LoadTensors(t.Context(), []modelsec.Tensor{head}, modelsec.TensorSink{Alloc: alloc}); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range events {
			got = append(got, e.Op+" "+e.Phase)
		}
		if want := []string{"tensors intent", "tensors outcome", "load intent", "load outcome"}; !slices.Equal(got, want) {
			t.Fatalf("got %q", got)
		}
		if last := events[3]; last.Bytes != head.Size || !last.Allowed || last.ID != events[2].ID || last.ID == events[1].ID {
			t.Errorf("got %+v", last)
		}
		fail.Store(true)
		var a arena
		refused(t, m.LoadTensors(t.Context(), []modelsec.Tensor{head}, a.sink()), modelsec.ErrAudit)
		if len(a.bufs) != 0 {
			t.Error("a load that was not recorded went on")
		}
	})
}

// TestLoadsRunSideBySide: loads and reads share a model and its memory.
func TestLoadsRunSideBySide(t *testing.T) {
	src := tensorModel()
	change := func(c *modelsec.Client, _ *modelsec.PushOptions) { c.MemoryLimit = 1 << 20 }
	opened(t, src, change, func(t *testing.T, m *modelsec.Model) {
		var running sync.WaitGroup
		for range 6 {
			running.Go(func() {
				var a arena
				if err := m.LoadTensors(t.Context(), nil, a.sink()); err != nil {
					t.Error(err)
					return
				}
				for i, x := range a.tensors {
					if !bytes.Equal(a.bufs[i], bytesOf(src, x)) {
						t.Errorf("tensor %q differs", x.Name)
					}
				}
			})
			running.Go(func() {
				if b, err := fs.ReadFile(m.FS(t.Context()), "model.safetensors"); err != nil || !bytes.Equal(b, src["model.safetensors"].Data) {
					t.Errorf("read: %v", err)
				}
			})
		}
		running.Wait()
	})
}

// TestCancelledLoadEnds: with the cause that the caller gave, and zeros.
func TestCancelledLoadEnds(t *testing.T) {
	p := newParty(t)
	memory := registry.NewMemory()
	push(t, p.client(memory), tagged, tensorModel(), p.options(p.recipients()))
	inBubble(t, func(t *testing.T) {
		slow := &evil{Opener: memory}
		m := must(p.client(slow).Open(t.Context(), tagged, p.policy()))
		defer m.Close()
		tensorsOf(t, m)
		slow.before = func(ctx context.Context, op, _ string) error {
			if op == "fetch" {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			return nil
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error)
		var a arena
		go func() { ended <- m.LoadTensors(ctx, nil, a.sink()) }()
		settle()
		stopped := errors.New("the server is stopping")
		cancel(stopped)
		refused(t, <-ended, stopped)
		for i, b := range a.bufs {
			if !bytes.Equal(b, make([]byte, len(b))) && a.tensors[i].Size > 0 {
				t.Errorf("tensor %q is not zero", a.tensors[i].Name)
			}
		}
	})
}
