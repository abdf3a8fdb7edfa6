// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package staging_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

func TestAFailedSyncIsFinal(t *testing.T) {
	for _, op := range []string{"sync", "syncDir"} {
		t.Run(op, func(t *testing.T) {
			dest := destination(t, false)
			failed := false
			d, err := staging.CreateOn(&staging.Faulty{Before: func(o, _ string) error {
				if o == op && !failed {
					failed = true
					return syscall.EIO
				}
				return nil
			}}, dest, id, model)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				for i := range model {
					if err := fillFile(d, i); err != nil && !errors.Is(err, syscall.EIO) {
						t.Fatal(err)
					}
				}
			}
			for range 2 {
				if err := d.Publish(); !errors.Is(err, syscall.EIO) {
					t.Errorf("got %v, want EIO", err)
				}
			}
			if err := d.Abort(true); err != nil {
				t.Error(err)
			}
			wantOnly(t, filepath.Dir(dest))
		})
	}
}

// TestNothingIsRenamedBeforeItIsSynced holds the order of operations to what
// survives a loss of power.
func TestNothingIsRenamedBeforeItIsSynced(t *testing.T) {
	for place, inside := range places {
		t.Run(place, func(t *testing.T) {
			dest := destination(t, inside)
			dirty := map[string]bool{}
			var last []string // directories synced since the last change of a name
			published := false
			synced := func(before string, dirs ...string) {
				for _, dir := range dirs {
					if !slices.Contains(last, dir) {
						t.Errorf("%s before a sync of %q", before, dir)
					}
				}
				last = nil
			}
			err := stage(&staging.Faulty{Inside: inside, Before: func(op, name string) error {
				switch op {
				case "write", "reserve":
					if !strings.HasSuffix(name, "journal") {
						dirty[name] = true
					}
				case "mkdir":
					if strings.HasPrefix(name, "files") {
						dirty[name] = true
					}
				case "sync":
					delete(dirty, name)
				case "syncDir":
					delete(dirty, name)
					last = append(last, name)
				case "open":
					if name == staging.MarkComplete {
						synced("the mark of completion", ".", "files")
					}
				case "rename":
					switch {
					case name == ".modelsec-moving":
						synced("the mark of a move", "moving")
					case inside && !published:
						synced("the first move", ".")
						published = true
					default:
						last, published = nil, true
					}
					if len(dirty) > 0 {
						t.Errorf("rename to %s before a sync of %v", name, dirty)
					}
				}
				return nil
			}}, dest)
			if err != nil || !published {
				t.Fatal(err, published)
			}
			synced("the end", ".")
		})
	}
}

// TestALossOfPowerCostsOnlyWhatWasNotSynced stops everything at operation n,
// tears what was written and not synced, and pulls again.
func TestALossOfPowerCostsOnlyWhatWasNotSynced(t *testing.T) {
	errPower := errors.New("no power")
	for place, inside := range places {
		t.Run(place, func(t *testing.T) {
			for n, over := 1, false; !over; n++ {
				dest := destination(t, inside)
				count, dirty := 0, map[string]bool{}
				err := stage(&staging.Faulty{Inside: inside, Before: func(op, name string) error {
					if count++; count >= n {
						return errPower
					}
					switch op {
					case "write":
						dirty[name] = true
					case "sync":
						delete(dirty, name)
					}
					return nil
				}}, dest)
				over = err == nil && count < n
				whole := visible(t, dest, inside)
				for name := range dirty {
					if whole {
						t.Fatalf("operation %d: %s is visible and not synced", n, name)
					}
					if err := os.WriteFile(name, []byte("torn"), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				if again := stage(&staging.Faulty{Inside: inside}, dest); whole != errors.Is(again, staging.ErrExists) || !whole && again != nil {
					t.Fatalf("operation %d: %v; again: %v", n, err, again)
				}
				if !visible(t, dest, inside) {
					t.Fatalf("operation %d: nothing is there after another try", n)
				}
			}
		})
	}
}
