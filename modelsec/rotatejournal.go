// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// maxRotateLine bounds one line of the journal of a rotation. The longest tags
// have 128 bytes, and are not in it.
const maxRotateLine = 64 << 10

// rotateJournal remembers which versions a rotation has done, in a file of JSON
// lines. It holds nothing secret, and whoever can write it can make the
// rotation leave out a version: keep it where you keep the keys. A nil journal
// remembers nothing.
type rotateJournal struct {
	f    *os.File
	done map[godigest.Digest]godigest.Digest // version → document
}

// rotateHead is the first line: which rotation this is.
type rotateHead struct {
	Rotation   int      `json:"rotation"`
	Repository string   `json:"repository"`
	Old        string   `json:"old"`
	New        []string `json:"new"`
	NotAfter   string   `json:"notAfter,omitempty"`
}

// rotateLine is any other line: a version that is done.
type rotateLine struct {
	Digest   godigest.Digest `json:"digest"`
	Document godigest.Digest `json:"document"`
}

func newRotateHead(repository string, o *RotateOptions) rotateHead {
	h := rotateHead{Rotation: 1, Repository: repository, Old: keyName(o.Old)}
	for _, r := range o.New {
		h.New = append(h.New, keyName(r))
	}
	slices.Sort(h.New)
	if !o.NotAfter.IsZero() {
		h.NotAfter = o.NotAfter.UTC().Format(time.RFC3339)
	}
	return h
}

// keyName tells keys apart in files of our own: the key id that a key has in no
// artifact.
func keyName(key any) string {
	if k, ok := key.(encrypt.Keyed); ok {
		return k.KeyID(encrypt.Binding{})
	}
	return fmt.Sprintf("%T", key)
}

// openRotateJournal takes a journal up, or starts one.
func openRotateJournal(path, repository string, o *RotateOptions) (_ *rotateJournal, err error) {
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: the journal %s is not a regular file", ErrConfig, path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	j := &rotateJournal{f: f, done: make(map[godigest.Digest]godigest.Digest)}
	if err := j.takeUp(newRotateHead(repository, o)); err != nil {
		f.Close()
		return nil, fmt.Errorf("journal %s: %w", path, err)
	}
	return j, nil
}

// takeUp reads what is there. A line that a crash has torn ends it; another
// rotation's journal is not written over.
func (j *rotateJournal) takeUp(want rotateHead) error {
	lines := bufio.NewReaderSize(j.f, maxRotateLine)
	line, err := lines.ReadSlice('\n')
	if err == io.EOF && (len(line) == 0 || strings.HasPrefix(`{"rotation":1,`, string(line[:min(len(line), 14)]))) {
		if err := j.f.Truncate(0); err != nil {
			return err
		}
		if _, err := j.f.Seek(0, io.SeekStart); err != nil {
			return err
		}
		return j.write(want)
	}
	var head rotateHead
	if err == nil {
		err = strictjson.Unmarshal(line, &head, maxRotateLine)
	}
	if err != nil {
		return fmt.Errorf("%w: it is no journal of a rotation: %w", ErrConfig, err)
	}
	if head.Rotation != want.Rotation || head.Repository != want.Repository || head.Old != want.Old || !slices.Equal(head.New, want.New) || head.NotAfter != want.NotAfter {
		return fmt.Errorf("%w: it is of another rotation; give another file", ErrConfig)
	}
	end := int64(len(line))
	for {
		line, err := lines.ReadSlice('\n')
		var l rotateLine
		if err != nil || strictjson.Unmarshal(line, &l, maxRotateLine) != nil || l.Document.Validate() != nil {
			break
		}
		j.done[l.Digest] = l.Document
		end += int64(len(line))
	}
	if err := j.f.Truncate(end); err != nil {
		return err
	}
	_, err = j.f.Seek(end, io.SeekStart)
	return err
}

// document is the grant that an earlier call wrote for a version; empty: none.
func (j *rotateJournal) document(d godigest.Digest) godigest.Digest {
	if j == nil {
		return ""
	}
	return j.done[d]
}

// note records a version that is done.
func (j *rotateJournal) note(r Rotated) error {
	if j == nil {
		return nil
	}
	return j.write(rotateLine{Digest: r.Digest, Document: r.Document})
}

func (j *rotateJournal) write(line any) error {
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return err
	}
	return j.f.Sync()
}

func (j *rotateJournal) close() { j.f.Close() }
