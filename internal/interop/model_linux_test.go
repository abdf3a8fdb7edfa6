// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestCommandKeepsARealModelAsItIs(t *testing.T) {
	model := folder(t, "MODELSEC_MODEL")
	var weights bool
	for name := range tree(t, model) {
		weights = weights || strings.HasSuffix(name, ".safetensors")
	}
	if !weights {
		t.Fatalf("MODELSEC_MODEL names %s, which has no safetensors file", model)
	}
	c := newCommand(t)
	for name, flags := range map[string][]string{"encrypted": {"--recipient", c.key("identity.pub")}, "plain": nil} {
		t.Run(name, func(t *testing.T) {
			c.roundTrip(t, dockerRegistry(t).host+"/team/model:v1", model, flags...)
		})
	}
}

// roundTrip pushes, verifies and pulls, and compares the directories.
func (c *command) roundTrip(t *testing.T, ref, dir string, flags ...string) {
	t.Helper()
	pushed := c.run(t, 0, append([]string{"push", dir, ref, "--sign-key", c.key("signing.key")}, flags...)...)
	verified := c.run(t, 0, "verify", "--deep", ref, "--key", c.key("signing.pub"))
	pulled := filepath.Join(t.TempDir(), "pulled")
	got := c.run(t, 0, "pull", ref, pulled, "--key", c.key("signing.pub"), "--identity", c.key("identity.key"))
	for _, r := range []result{verified, got} {
		if r.stdout != pushed.stdout || !strings.HasPrefix(r.stdout, ref+"@sha256:") {
			t.Errorf("push printed %q, a reader %q", pushed.stdout, r.stdout)
		}
	}
	sameByDiff(t, dir, pulled)
	if err := os.RemoveAll(pulled); err != nil {
		t.Error(err)
	}
}

// weightFile is the one large file of the generated model.
const weightFile = "model.safetensors"

// generatedModel writes a model of MODELSEC_INTEROP_SIZE bytes.
func generatedModel(t *testing.T) string {
	t.Helper()
	size := int64(2 << 30)
	if testing.Short() {
		size = 64 << 20
	}
	if text := os.Getenv("MODELSEC_INTEROP_SIZE"); text != "" {
		var err error
		if size, err = strconv.ParseInt(text, 10, 64); err != nil || size < 1<<20 {
			t.Fatalf("MODELSEC_INTEROP_SIZE=%q: want a number of bytes, at least 1 MiB", text)
		}
	}
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, weightFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// One tensor of bytes behind a header of 80 bytes.
	header := `{"weights":{"dtype":"U8","shape":[` + strconv.FormatInt(size-80, 10) + `],"data_offsets":[0,` + strconv.FormatInt(size-80, 10) + `]}}`
	header += strings.Repeat(" ", max(0, 72-len(header)))
	start := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	_, err = io.Copy(f, io.MultiReader(
		strings.NewReader(string(start)+header),
		io.LimitReader(rand.NewChaCha8([32]byte{1}), size-8-int64(len(header)))))
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestCommandKeepsALargeModelAsItIs(t *testing.T) {
	s := dockerRegistry(t)
	dir, c := generatedModel(t), newCommand(t)
	ref := s.host + "/team/large:v1"
	c.roundTrip(t, ref, dir, "--recipient", c.key("identity.pub"))
	t.Run("FlippedBytesAreRefused", func(t *testing.T) {
		flipInReaders(t, c, s, ref)
	})
	t.Run("PullOfFlippedBytesIsRefused", func(t *testing.T) {
		flipInPulls(t, c, s, ref, dir)
	})
}

// absent expects that nothing is at path.
func absent(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}
