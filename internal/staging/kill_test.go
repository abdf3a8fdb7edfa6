// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build unix

package staging_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"

	"github.com/modelsec/modelsec-go/internal/staging"
)

// The test binary runs itself as the process that is killed.
const (
	envDest   = "MODELSEC_TEST_STAGING_DEST"
	envKillAt = "MODELSEC_TEST_STAGING_KILL_AT"
	envInside = "MODELSEC_TEST_STAGING_INSIDE"
)

func TestMain(m *testing.M) {
	if dest := os.Getenv(envDest); dest != "" {
		if err := stageUntilKilled(dest); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// The runtime opens its poller when it first needs one: now, before the
	// tests count open files.
	if r, w, err := os.Pipe(); err == nil {
		r.Close()
		w.Close()
	}
	os.Exit(m.Run())
}

func stageUntilKilled(dest string) error {
	at, err := strconv.Atoi(os.Getenv(envKillAt))
	if err != nil {
		return err
	}
	count := 0
	return stage(&staging.Faulty{Inside: os.Getenv(envInside) == "true", Before: func(op, name string) error {
		if count++; count == at {
			return errors.Join(syscall.Kill(os.Getpid(), syscall.SIGKILL), errors.New("not killed"))
		}
		return nil
	}}, dest)
}

// TestAKilledPullIsResumed kills the process before its first operation, its
// second and so on, and pulls again.
func TestAKilledPullIsResumed(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for place, inside := range places {
		t.Run(place, func(t *testing.T) {
			for n, killed := 1, true; killed; n++ {
				dest := destination(t, inside)
				child := exec.Command(self)
				child.Env = append(os.Environ(), envDest+"="+dest, fmt.Sprintf("%s=%d", envKillAt, n), fmt.Sprintf("%s=%v", envInside, inside))
				out, err := child.CombinedOutput()
				status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
				killed = ok && status.Signaled()
				if err != nil && !killed {
					t.Fatalf("%v: %s", err, out)
				}
				whole := visible(t, dest, inside)
				again := stage(&staging.Faulty{Inside: inside}, dest)
				if whole != errors.Is(again, staging.ErrExists) || !whole && again != nil {
					t.Fatalf("killed at operation %d; again: %v", n, again)
				}
				if !visible(t, dest, inside) {
					t.Fatalf("killed at operation %d: nothing is there after another try", n)
				}
				if left := leftovers(t, dest); len(left) > 0 {
					t.Fatalf("killed at operation %d: left %q", n, left)
				}
			}
		})
	}
}
