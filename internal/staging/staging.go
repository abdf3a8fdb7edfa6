// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package staging writes a set of files into a directory that becomes visible
// only whole.
//
// Create makes a private directory on the file system of the destination,
// WriteAt fills the files in any order, Done makes one durable, and Publish
// renames the whole to the destination. Until then nothing is visible there;
// after a crash, a kill or a full disk the destination is as it was, and the
// same Create finds what had been written.
//
// What an earlier process left is reused only where nobody else can have
// touched it: a directory of mode 0700 that is ours, in a directory that
// others cannot write, holding nothing but regular files of ours with one
// link. Even so the bytes prove nothing: the caller reads them back and checks
// every one before it calls Done.
//
// A process that lives holds an advisory lock on its staging directory, so a
// second one takes a directory of its own. Nothing depends on that lock. On a
// file system where it does not work, two processes may fill one directory: as
// both write only bytes that they verified, for the same digest and at the
// same places, they write the same bytes. One of them publishes, the other
// gets ErrExists or finds its directory gone; at worst work is done twice.
//
// Calls do local input and output, which cannot be interrupted, and take no
// context: callers look at theirs between calls. All of a Dir but Create,
// Publish and Abort may be called concurrently.
package staging

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"github.com/modelsec/modelsec-go/internal/index"
)

// ErrExists says that the destination is neither absent nor an empty
// directory. It wraps fs.ErrExist.
var ErrExists = fmt.Errorf("destination is not absent or an empty directory: %w", fs.ErrExist)

// ErrNoSpace is wrapped by every SpaceError.
var ErrNoSpace = errors.New("not enough space")

// SpaceError says that the disk, a quota or the largest size of a file does
// not admit a write.
type SpaceError struct {
	Path      string // the directory or file that has no room
	Needed    int64  // bytes
	Available int64  // bytes, or -1 where the system does not say
	Err       error  // what the system said, or nil where we asked first
}

func (e *SpaceError) Error() string {
	s := fmt.Sprintf("%s: %v: %d bytes needed", e.Path, ErrNoSpace, e.Needed)
	if e.Available >= 0 {
		s += fmt.Sprintf(", %d available", e.Available)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap lets both ErrNoSpace and the system's error be found.
func (e *SpaceError) Unwrap() []error { return []error{ErrNoSpace, e.Err} }

// File is one file to write. Path is held to FORMAT.md §5.2.
type File struct {
	Path string
	Size int64
}

// Names in the staging directory. The tree is what gets published.
const (
	treeName    = "files"
	journalName = "journal"
	movingName  = "moving"
)

// Dir is a directory that is being filled. Abort must be called on every
// path; after a successful Publish it does nothing.
type Dir struct {
	sys     disk
	id      string
	dest    string         // absolute, for messages
	home    *os.Root       // holds the staging directory: the parent of dest, or dest
	base    string         // name of dest in home; empty where home is dest
	name    string         // name of the staging directory in home
	stage   *os.Root       // the staging directory
	lock    *os.File       // the same, holding the advisory lock
	owner   fs.FileInfo    // the same, as it was opened
	files   []File         // as given
	byPath  map[string]int // position in files
	dirs    []string       // directories of files, parents first
	isDir   map[string]bool
	resumed bool
	scratch bool // the staging directory has a random name
	memory  bool

	allocated int64 // bytes on the disk that an earlier process left

	mu        sync.Mutex
	open      map[int]*handle
	done      []bool
	journal   *os.File
	final     error // the first fsync that failed; never retried
	moving    bool  // entries may be in dest that lack a mark of completion
	published bool
	closed    bool
}

// Create starts to fill dest, which must be absent or an empty directory, and
// whose parent must exist. id is 16 hex digits of the manifest digest: what an
// earlier process left for the same dest and id is taken up again.
//
// Where dest is a mount point, or an existing directory whose parent we may
// not write, nothing can be renamed onto it. The staging directory then lies
// inside dest; Publish renames its entries one by one and creates the file
// .modelsec-complete last. Readers of such a destination wait for that file.
func Create(dest, id string, files []File) (*Dir, error) {
	return create(osDisk{}, dest, id, files)
}

func create(sys disk, dest, id string, files []File) (_ *Dir, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("stage %s: %w", dest, err)
		}
	}()
	if !isHex(id, 16) {
		return nil, fmt.Errorf("id %q is not 16 lower-case hex digits", id)
	}
	dest, err = filepath.Abs(dest)
	if err != nil {
		return nil, err
	}
	d := &Dir{sys: sys, id: id, dest: dest, base: filepath.Base(dest), open: make(map[int]*handle)}
	if err := d.plan(files); err != nil {
		return nil, err
	}
	if d.home, err = os.OpenRoot(filepath.Dir(dest)); err != nil {
		return nil, err
	}
	if err := d.begin(); err != nil {
		return nil, errors.Join(err, d.Abort(d.resumed))
	}
	return d, nil
}

// plan checks the list of files and works out the directories.
func (d *Dir) plan(files []File) error {
	d.files = append([]File(nil), files...)
	d.done = make([]bool, len(files))
	d.byPath = make(map[string]int, len(files))
	d.isDir = make(map[string]bool)
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.Path
		if f.Size < 0 {
			return fmt.Errorf("file %q: size %d", f.Path, f.Size)
		}
		d.byPath[f.Path] = i
	}
	if err := index.CheckPaths(paths); err != nil {
		return err
	}
	for _, p := range paths {
		for i := range len(p) {
			if p[i] == '/' && !d.isDir[p[:i]] {
				d.isDir[p[:i]] = true
				d.dirs = append(d.dirs, p[:i])
			}
		}
	}
	return nil
}

// begin finds the staging directory and makes room in it.
func (d *Dir) begin() error {
	if err := d.place(); err != nil {
		return err
	}
	for _, dir := range append([]string{""}, d.dirs...) {
		if err := d.sys.mkdir(d.stage, path.Join(treeName, dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return d.space(err, dir, 0)
		}
	}
	if err := d.checkSpace(); err != nil {
		return err
	}
	var err error
	d.journal, err = d.sys.open(d.stage, journalName, os.O_RDWR|os.O_CREATE)
	return d.space(err, journalName, 0)
}

// checkSpace refuses before the first write what the disk cannot hold. Other
// writers can still take the space; then the first write to a file finds out.
func (d *Dir) checkSpace() error {
	var need int64
	for _, f := range d.files {
		if f.Size > (1<<63-1)-need {
			return &SpaceError{Path: d.dest, Needed: 1<<63 - 1, Available: -1}
		}
		need += f.Size
	}
	free, memory, err := d.sys.space(d.lock)
	if err != nil {
		return err
	}
	d.memory = memory
	if need -= min(d.allocated, need); free >= 0 && need > free {
		return &SpaceError{Path: d.dest, Needed: need, Available: free}
	}
	return nil
}

// space turns an error of the system about space into a SpaceError, and
// leaves others, nil too, as they are.
func (d *Dir) space(err error, name string, needed int64) error {
	if !noSpace(err) {
		return err
	}
	free, _, statErr := d.sys.space(d.lock)
	if statErr != nil {
		free = -1
	}
	return &SpaceError{Path: filepath.Join(d.dest, name), Needed: needed, Available: free, Err: err}
}

// Resumed reports whether an earlier process left the directory, so that some
// of the bytes may be there already.
func (d *Dir) Resumed() bool { return d.resumed }

// MemoryBacked reports whether the files lie in memory (tmpfs, ramfs), which
// may still be written to swap.
func (d *Dir) MemoryBacked() bool { return d.memory }

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}
