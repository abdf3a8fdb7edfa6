// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// scenario is one model and one network.
type scenario struct {
	name  string
	files int
	size  int64 // of each file
	limit int   // MB/s of one connection; 0: none
}

// scenarios returns all, for a model of so many bytes. Small files are 256 KiB
// each where the model is 2 GiB, as adapters and tokenizers are.
func scenarios(total int64) []scenario {
	return []scenario{
		{name: "one", files: 1, size: total},
		{name: "four", files: 4, size: total / 4},
		{name: "many", files: 300, size: total / 8192},
		{name: "capped", files: 1, size: total, limit: 90},
		{name: "shards", files: 16, size: total / 16, limit: 90},
	}
}

func (s scenario) bytes() int64 { return int64(s.files) * s.size }

// String describes the scenario for tables and plots.
func (s scenario) String() string {
	text := fmt.Sprintf("%d × %s", s.files, size(s.size))
	if s.limit > 0 {
		text += fmt.Sprintf(", %d MB/s a connection", s.limit)
	}
	return text
}

// write makes the files: random bytes that do not compress, and the same in
// every run.
func (s scenario) write(dir string) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var names []string
	for i := range s.files {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", i+1, s.files)
		names = append(names, name)
		if err := writeRandom(filepath.Join(dir, name), uint64(i), s.size); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func writeRandom(name string, seed uint64, length int64) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if e := f.Close(); err == nil {
			err = e
		}
	}()
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(rand.NewChaCha8(key), length), buffers[0][:])
	return err
}

// size is a number of bytes that is written as in 256MiB.
type size int64

var units = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"", 1}}

func (s size) String() string {
	for _, u := range units {
		if int64(s) >= u.bytes && int64(s)%u.bytes == 0 {
			return strings.TrimSpace(fmt.Sprintf("%d %s", int64(s)/u.bytes, u.name))
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// Set implements flag.Value.
func (s *size) Set(text string) error {
	number, unit := text, int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(text, u.name); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 1 || n > (1<<42)/unit {
		return fmt.Errorf("%q is not a size such as 256MiB", text)
	}
	*s = size(n * unit)
	return nil
}
