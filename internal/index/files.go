// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
)

// Roles of a file, in the order that layers are written. FORMAT.md §2.2.
var Roles = []string{"weight", "weight.config", "code", "doc", "dataset"}

// Run places a piece of a file in the content of a layer. It is encoded as an
// array of the four numbers.
type Run struct {
	FileOffset  int64
	Layer       int
	LayerOffset int64
	Length      int64
}

// MarshalJSON encodes the run as [fileOffset, layer, layerOffset, length].
func (r Run) MarshalJSON() ([]byte, error) {
	return json.Marshal([4]int64{r.FileOffset, int64(r.Layer), r.LayerOffset, r.Length})
}

// UnmarshalJSON accepts exactly four numbers; encoding/json would pad or cut
// an array of another length.
func (r *Run) UnmarshalJSON(b []byte) error {
	var v []uint64
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	if len(v) != 4 {
		return fmt.Errorf("a run of %d numbers, want 4", len(v))
	}
	if v[1] >= maxLayers || max(v[0], v[2], v[3]) > math.MaxInt64 {
		return fmt.Errorf("run %d is out of bounds", v)
	}
	*r = Run{FileOffset: int64(v[0]), Layer: int(v[1]), LayerOffset: int64(v[2]), Length: int64(v[3])}
	return nil
}

// File is one file of the model. FORMAT.md §5.1.
type File struct {
	Path string `json:"path"`
	Role string `json:"role"`
	Size int64  `json:"size"`
	Runs []Run  `json:"runs"`
}

// Piece is a run seen from its layer.
type Piece struct {
	File int // position in the file list
	Run
}

// CheckFiles holds a file list to FORMAT.md §5.1 and §5.2.
func CheckFiles(files []File, layers []Geometry) error {
	if err := checkSome(files, layers); err != nil {
		return err
	}
	for i, pieces := range ByLayer(files, len(layers)) {
		if len(pieces) == 0 {
			return fmt.Errorf("layer %d belongs to no file", i)
		}
	}
	return nil
}

// checkSome is CheckFiles for a list of some files, as a grant has.
func checkSome(files []File, layers []Geometry) error {
	if len(files) == 0 || len(files) > maxFiles {
		return fmt.Errorf("%d files, want 1 to %d", len(files), maxFiles)
	}
	runs := 0
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.Path
		runs += len(f.Runs)
		if runs > maxRuns {
			return fmt.Errorf("more than %d runs", maxRuns)
		}
		if !slices.Contains(Roles, f.Role) {
			return fmt.Errorf("file %q: role %q", truncate(f.Path), truncate(f.Role))
		}
		if err := checkRuns(f, layers); err != nil {
			return fmt.Errorf("file %q: %w", truncate(f.Path), err)
		}
	}
	if err := CheckPaths(paths); err != nil {
		return err
	}
	for i, pieces := range ByLayer(files, len(layers)) {
		var end int64
		for _, p := range pieces {
			if p.LayerOffset < end {
				return fmt.Errorf("layer %d: two runs overlap at %d", i, p.LayerOffset)
			}
			end = p.LayerOffset + p.Length
		}
	}
	return nil
}

// checkRuns demands that the runs cover the file once, in order, inside the
// layers. Every number is compared before it is added, so no sum overflows.
func checkRuns(f File, layers []Geometry) error {
	if f.Size < 0 {
		return fmt.Errorf("size %d", f.Size)
	}
	if f.Size == 0 && (len(f.Runs) != 1 || f.Runs[0].Length != 0) {
		return errors.New("an empty file has one empty run")
	}
	var next int64
	for _, r := range f.Runs {
		if r.Layer >= len(layers) || r.Layer < 0 {
			return fmt.Errorf("run in layer %d of %d", r.Layer, len(layers))
		}
		content := layers[r.Layer].Content
		switch {
		case r.FileOffset != next:
			return fmt.Errorf("run at %d, want %d", r.FileOffset, next)
		case r.Length <= 0 && f.Size != 0, r.Length < 0, r.Length > f.Size-next:
			return fmt.Errorf("run of %d bytes at %d of %d", r.Length, next, f.Size)
		case r.LayerOffset < 0 || r.LayerOffset > content || r.Length > content-r.LayerOffset:
			return fmt.Errorf("run of %d bytes at %d of layer %d, which has %d", r.Length, r.LayerOffset, r.Layer, content)
		}
		next += r.Length
	}
	if next != f.Size {
		return fmt.Errorf("runs cover %d of %d bytes", next, f.Size)
	}
	return nil
}

// ByLayer turns the file list around: the pieces of every layer, by offset.
func ByLayer(files []File, layers int) [][]Piece {
	out := make([][]Piece, layers)
	for i, f := range files {
		for _, r := range f.Runs {
			out[r.Layer] = append(out[r.Layer], Piece{File: i, Run: r})
		}
	}
	for _, pieces := range out {
		slices.SortFunc(pieces, func(a, b Piece) int {
			return cmp.Or(cmp.Compare(a.LayerOffset, b.LayerOffset), cmp.Compare(a.Length, b.Length))
		})
	}
	return out
}
