// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// settings is the directory in which clients of one run find the gateway. It is
// used by descriptor, so that whoever can rename its parents turns no write and
// no removal to another place.
type settings struct {
	path  string // absolute, and the same for every reader of the file "env"
	root  *os.Root
	files []string // to be removed
}

// newSettings makes the directory, which must not be there.
func newSettings(path string) (*settings, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	// Shells, systemd and containers quote differently; what none of them would
	// change needs no quotes.
	if strings.IndexFunc(path, needsQuotes) >= 0 {
		return nil, usagef("--settings %q: want a path of letters, digits and /._+-@: only, since programs that read it from %q would quote others differently", path, "env")
	}
	if err := os.Mkdir(path, 0o700); errors.Is(err, fs.ErrExist) {
		return nil, usagef("--settings %s: it is there already: in use, or left by a run that was killed and may be removed", path)
	} else if err != nil {
		return nil, usage(err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &settings{path: path, root: root}, nil
}

func needsQuotes(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != filepath.Separator && !strings.ContainsRune("/._+-@:", r)
}

// file is the path of a file of the directory, for other processes.
func (s *settings) file(name string) string { return filepath.Join(s.path, name) }

// write makes a new file.
func (s *settings) write(name string, content []byte) error {
	f, err := s.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	s.files = append(s.files, name)
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// writeEnv writes the variables, complete at once.
func (s *settings) writeEnv(endpoint string, more ...string) error {
	text := strings.Join(append([]string{"AWS_ENDPOINT_URL=" + endpoint}, more...), "\n") + "\n"
	if err := s.write(".env", []byte(text)); err != nil {
		return err
	}
	s.files = append(s.files, "env")
	return s.root.Rename(".env", "env")
}

// remove removes what was written, and the directory where nothing else is in it.
func (s *settings) remove() error {
	var err error
	for _, name := range s.files {
		if e := s.root.Remove(name); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return errors.Join(err, s.root.Close(), os.Remove(s.path))
}
