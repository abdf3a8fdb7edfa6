// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build !nolanes && !purego

package digest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
)

// distrust gives a test a process that has hashed nothing yet, and the next one
// too.
func distrust(t *testing.T) {
	digest.Distrust()
	t.Cleanup(digest.Distrust)
}

// defect makes the lanes wrong until the end of the test.
func defect(t *testing.T) {
	digest.Defect()
	t.Cleanup(digest.Defect)
}

// everyLane is everyPath without those that have no lanes.
func everyLane(t *testing.T, test func(*testing.T, digest.Path)) {
	for _, p := range paths[2:] {
		t.Run(p.name, func(t *testing.T) {
			lanesOf(t, p.path)
			distrust(t)
			test(t, p.path)
		})
	}
}

func TestK46WrongKnownAnswerFailsOnceAndTurnsLanesOff(t *testing.T) {
	everyLane(t, func(t *testing.T, p digest.Path) {
		defect(t)
		if _, err := digest.NewLanes(p); !errors.Is(err, digest.ErrLanes) {
			t.Fatalf("got %v, want ErrLanes", err)
		}
		wantOff(t, p)
	})
}

func TestK46MismatchFailsLoadsAndTurnsLanesOff(t *testing.T) {
	everyLane(t, func(t *testing.T, p digest.Path) {
		l, bystander := lanesOf(t, p), lanesOf(t, p)
		single := lanesOf(t, digest.Single)
		defect(t)
		const group = 8
		messages, sums := make([][]byte, group), make([][digest.Size]byte, group)
		var err error
		hashed := 0
		for ; err == nil && hashed < digest.CheckEvery; hashed += group {
			err = l.Sum(sums, messages)
		}
		if !errors.Is(err, digest.ErrLanes) {
			t.Fatalf("got %v after %d wrong digests, want ErrLanes", err, hashed)
		}
		for i, sum := range sums {
			if sum != [digest.Size]byte{} {
				t.Errorf("digest %d is %x after an error, want zero", i, sum)
			}
		}
		for name, l := range map[string]*digest.Lanes{"same": l, "other": bystander} {
			if err := l.Err(); !errors.Is(err, digest.ErrLanes) {
				t.Errorf("%s load: Err is %v, want ErrLanes", name, err)
			}
			if err := l.Sum(sums, messages); !errors.Is(err, digest.ErrLanes) {
				t.Errorf("%s load: Sum is %v, want ErrLanes", name, err)
			}
		}
		if err := single.Err(); err != nil {
			t.Errorf("a load without lanes: %v", err)
		}
		wantOff(t, p)
	})
}

func TestK46CheckFindsMismatch(t *testing.T) {
	everyLane(t, func(t *testing.T, p digest.Path) {
		l := lanesOf(t, p)
		message := []byte("segment")
		if err := l.Check(sha256.Sum256(message), message); err != nil {
			t.Fatalf("right digest: %v", err)
		}
		if err := l.Check(sha256.Sum256(nil), message); !errors.Is(err, digest.ErrLanes) {
			t.Fatalf("wrong digest: got %v, want ErrLanes", err)
		}
		wantOff(t, p)
	})
}

// TestK46ChecksOneInEvery1024 counts on groups that divide 1,024 unevenly.
func TestK46ChecksOneInEvery1024(t *testing.T) {
	everyLane(t, func(t *testing.T, p digest.Path) {
		for _, group := range []int{2, 3, 16, 17, 1000} {
			digest.Distrust()
			l := lanesOf(t, p)
			digest.Defect()
			messages, sums := make([][]byte, group), make([][digest.Size]byte, group)
			lanes := 0
			for l.Sum(sums, messages) == nil {
				// The odd one out of a group is hashed without lanes.
				if lanes += group &^ 1; lanes > digest.CheckEvery {
					t.Errorf("groups of %d: %d wrong digests passed", group, lanes)
					break
				}
			}
			digest.Defect()
		}
	})
}

func TestK46MismatchInABlobFailsIt(t *testing.T) {
	everyLane(t, func(t *testing.T, p digest.Path) {
		l := lanesOf(t, p)
		b := l.NewBlob()
		defect(t)
		defective := l.NewBlob()
		part := []byte("segment")
		for range digest.CheckEvery {
			defective.Part(part)
		}
		if p == digest.Sixteen {
			// It has no pairs, so a Blob is hashed by others.
			if sum, err := defective.Sum(); err != nil || sum != sha256.Sum256(bytes.Repeat(part, digest.CheckEvery)) {
				t.Errorf("got %x, %v", sum, err)
			}
			return
		}
		for name, b := range map[string]*digest.Blob{"same": defective, "other": b} {
			if sum, err := b.Sum(); !errors.Is(err, digest.ErrLanes) || sum != [digest.Size]byte{} {
				t.Errorf("%s blob: got %x, %v, want ErrLanes", name, sum, err)
			}
		}
		wantOff(t, p)
		if sum, err := lanesOf(t, p).NewBlob().Sum(); err != nil || sum != sha256.Sum256(nil) {
			t.Errorf("a blob without pairs: got %x, %v", sum, err)
		}
	})
}

func TestK46CheckOfABlobSeesBothDigests(t *testing.T) {
	lanesOf(t, digest.Pairs)
	data := randomBytes(3000)
	check := func(parts [][]byte, watched int) {
		t.Helper()
		if !digest.Confirms(parts, watched, false, false) {
			t.Fatalf("part %d of %d, %d bytes: right digests are not confirmed", watched, len(parts), len(parts[watched]))
		}
		if digest.Confirms(parts, watched, true, false) || digest.Confirms(parts, watched, false, true) {
			t.Fatalf("part %d of %d, %d bytes: a wrong digest is confirmed", watched, len(parts), len(parts[watched]))
		}
	}
	for n := range 300 {
		check([][]byte{data[:n]}, 0)
	}
	if !digest.Both() {
		return
	}
	for n := 8; n <= 16; n++ {
		parts := make([][]byte, n)
		for i := range parts {
			parts[i] = data[i*70:][:1500+7*i]
		}
		for i := range parts {
			check(parts, i)
		}
	}
}

// TestK46MismatchInAGroupOfPartsFailsTheBlob counts on groups that divide 1,024
// unevenly.
func TestK46MismatchInAGroupOfPartsFailsTheBlob(t *testing.T) {
	if !digest.Both() {
		return // the pairs have tests of their own
	}
	for _, group := range []int{8, 15, 16} {
		distrust(t)
		b := lanesOf(t, digest.Auto).NewBlob()
		digest.Defect()
		parts, sums := make([][]byte, group), make([][digest.Size]byte, group)
		for i := range parts {
			parts[i] = make([]byte, 1100)
		}
		hashed := 0
		for ; hashed <= digest.CheckEvery; hashed += group {
			b.Parts(sums, parts)
		}
		digest.Defect()
		if sum, err := b.Sum(); !errors.Is(err, digest.ErrLanes) || sum != [digest.Size]byte{} {
			t.Errorf("groups of %d: got %x, %v after %d wrong digests, want ErrLanes", group, sum, err, hashed)
		}
	}
}

func wantOff(t *testing.T, p digest.Path) {
	t.Helper()
	l := lanesOf(t, p)
	if l.Width() != 1 {
		t.Errorf("new lanes have width %d, want 1", l.Width())
	}
	compare(t, l, [][]byte{[]byte("a"), []byte("b"), []byte("c")})
}

// TestSumHandsOverToPairs lets lanes of sixteen end one after the other, so that
// the rest continues in pairs.
func TestSumHandsOverToPairs(t *testing.T) {
	lanesOf(t, digest.Pairs)
	lanesOf(t, digest.Sixteen)
	data := randomBytes(1 << 13)
	for from := 2; from <= 17; from++ {
		l := digest.Handover(from)
		messages := make([][]byte, 16)
		for i := range messages {
			messages[i] = data[i:][:(i*7%16)*150]
		}
		for n := range 17 {
			compare(t, l, messages[:n])
		}
	}
}
