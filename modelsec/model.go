// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"io/fs"
	"sync"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// Model is an artifact that passed its policy and whose key, where it is
// encrypted, is at hand. It is safe for concurrent use.
type Model struct {
	*artifact
	content *content
	key     *encrypt.Key   // nil in the plain profile, and with grants of some files
	entry   encrypt.Stanza // that held key
	byPath  map[string]int

	cache      *segmentCache
	tensorList tensorList

	opening sync.Mutex // held while a handle is recorded
	handles map[int]*operation

	mu      sync.Mutex
	running sync.WaitGroup
	life    context.Context // ends with Close
	end     context.CancelCauseFunc
}

// File is one file of a model.
type File struct {
	Name string // Path below the model, with slashes.
	Role string // weight, weight.config, code, doc or dataset.
	Size int64  // Bytes.
}

func newModel(a *artifact, t *content) *Model {
	m := &Model{artifact: a, content: t, cache: newSegmentCache(a.c.budget, t.index.SegmentSize)}
	m.life, m.end = context.WithCancelCause(context.Background())
	return m
}

// Descriptor is that of the model's manifest.
func (m *Model) Descriptor() ocispec.Descriptor { return m.desc }

// Report is what the policy found. The caller must not change it.
func (m *Model) Report() *provenance.Report { return m.report }

// Notes says what was noticed while content moved: hosts that ignore ranges,
// mirrors that served wrong bytes and are not asked any more, mirrors that
// answered for the registry.
func (m *Model) Notes() []string {
	notes := m.content.sources.report()
	if a, ok := m.store.(registry.Answered); ok {
		for _, name := range a.AnsweredBy() {
			notes = append(notes, name+" answered in place of the registry")
		}
	}
	return notes
}

// Files lists the files in the order of their layers.
func (m *Model) Files() []File {
	files := make([]File, len(m.content.files))
	for i, f := range m.content.files {
		files[i] = File{Name: f.Path, Role: f.Role, Size: f.Size}
	}
	return files
}

// file finds a file by name.
func (m *Model) file(name string) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byPath == nil {
		m.byPath = make(map[string]int, len(m.content.files))
		for i, f := range m.content.files {
			m.byPath[f.Path] = i
		}
	}
	i, ok := m.byPath[name]
	if !ok {
		return 0, fs.ErrNotExist
	}
	return i, nil
}

// enter registers a read, so that Close waits for it. The context it returns
// ends with the caller's or when the model is closed.
func (m *Model) enter(ctx context.Context) (_ context.Context, release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.life.Err() != nil {
		return nil, nil, fs.ErrClosed
	}
	m.running.Add(1)
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(m.life, func() { cancel(fs.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		m.running.Done()
	}, nil
}

// Close refuses new reads, cancels those that run, waits for them and wipes
// the key and what was cached. Later reads fail with fs.ErrClosed. It may be
// called twice. Its error may be that of the audit hook, see [Model.ReaderAt].
func (m *Model) Close() error {
	m.mu.Lock()
	closed := m.life.Err() != nil
	m.end(fs.ErrClosed)
	m.mu.Unlock()
	m.running.Wait()
	if closed {
		return nil
	}
	m.cache.drop()
	m.tensorList.drop(m.c.budget)
	err := join(m.endHandles(), m.content.release())
	if m.key != nil {
		err = join(err, m.key.Close())
	}
	return err
}
