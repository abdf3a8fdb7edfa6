// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"errors"
	"os"
)

// SetSegmentSize makes a push write small segments, so that small artifacts
// have many.
func SetSegmentSize(o *PushOptions, bytes int64) { o.segmentSize = bytes }

// ParseManifest is the reader of model manifests, for fuzzing.
func ParseManifest(b []byte) (layers int, indexed bool, err error) {
	m, indexed, err := parseManifest(b)
	if err != nil {
		return 0, false, err
	}
	return len(m.Layers), indexed, nil
}

// Held returns the bytes of the client's budget that are in use.
func (c *Client) Held() (held, lent int64) {
	c.init()
	c.budget.mu.Lock()
	defer c.budget.mu.Unlock()
	return c.budget.held, c.budget.lent
}

// KeptKeys is how many data keys a client holds beside its models.
func KeptKeys(c *Client) int {
	c.keys.mu.Lock()
	defer c.keys.mu.Unlock()
	return len(c.keys.kept)
}

// TakeUpRotation opens the journal of a rotation over what a file holds, and
// returns what it holds then.
func TakeUpRotation(path string, b []byte, o *RotateOptions) ([]byte, error) {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		return nil, err
	}
	j, err := openRotateJournal(path, "registry.example.com/team/llama", o)
	if err == nil {
		j.close()
	}
	after, readErr := os.ReadFile(path)
	return after, errors.Join(err, readErr)
}
