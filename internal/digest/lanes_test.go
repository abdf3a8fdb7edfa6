// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package digest_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/modelsec/modelsec-go/internal/digest"
)

var paths = []struct {
	name string
	path digest.Path
}{{"auto", digest.Auto}, {"single", digest.Single}, {"pairs", digest.Pairs}, {"sixteen", digest.Sixteen}}

// everyPath runs a test on every path, or says which this machine lacks.
func everyPath(t *testing.T, test func(*testing.T, *digest.Lanes)) {
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) { test(t, lanesOf(t, p.path)) })
	}
}

func lanesOf(t testing.TB, p digest.Path) *digest.Lanes {
	t.Helper()
	l, err := digest.NewLanes(p)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// compare hashes messages in lanes and one by one.
func compare(t testing.TB, l *digest.Lanes, messages [][]byte) {
	t.Helper()
	got := make([][digest.Size]byte, len(messages))
	if err := l.Sum(got, messages); err != nil {
		t.Fatal(err)
	}
	for i, m := range messages {
		if want := sha256.Sum256(m); got[i] != want {
			t.Fatalf("message %d of %d, %d bytes: got %x, want %x", i, len(messages), len(m), got[i], want)
		}
	}
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestSumEqualsStandardLibraryInMillionCases(t *testing.T) {
	cases := 1_000_000
	if testing.Short() {
		cases = 50_000
	}
	data := randomBytes(8 << 10)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		r := rand.New(rand.NewPCG(1, 2))
		for done := 0; done < cases; {
			messages := make([][]byte, 1+r.IntN(40))
			// Short messages are most of the cases and long ones most of the bytes.
			limit := 1 << (4 + r.IntN(9))
			for i := range messages {
				start := r.IntN(len(data) - limit)
				messages[i] = data[start : start+r.IntN(limit+1)]
			}
			compare(t, l, messages)
			done += len(messages)
		}
	})
}

func TestSumPadsAtBlockBorders(t *testing.T) {
	data := randomBytes(1 << 10)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		for n := range 200 {
			for lanes := 1; lanes <= 18; lanes++ {
				equal, rising := make([][]byte, lanes), make([][]byte, lanes)
				for i := range lanes {
					equal[i], rising[i] = data[i:i+n], data[i:i+n+i*n/16]
				}
				compare(t, l, equal)
				compare(t, l, rising)
			}
		}
	})
}

func TestSumHashesSegments(t *testing.T) {
	const segment = 1<<20 + 32 // as stored, encrypted
	data := randomBytes(2 * segment)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		messages := make([][]byte, 21)
		for i := range messages {
			messages[i] = data[i*4099:][:segment]
		}
		compare(t, l, messages)
		messages[3] = messages[3][:70_001] // the end of a layer
		messages[8] = nil                  // an empty one
		compare(t, l, messages)
	})
}

func TestSumTakesNoMessages(t *testing.T) {
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		if err := l.Sum(nil, nil); err != nil {
			t.Error(err)
		}
	})
}

func TestSumRefusesTooFewDigests(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("Sum hashed two messages into one digest")
		}
	}()
	lanesOf(t, digest.Auto).Sum(make([][digest.Size]byte, 1), make([][]byte, 2))
}

func TestSumAllocatesNothing(t *testing.T) {
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		messages, sums := make([][]byte, 37), make([][digest.Size]byte, 37)
		for i := range messages {
			messages[i] = make([]byte, 100*i)
		}
		n := testing.AllocsPerRun(100, func() {
			if err := l.Sum(sums, messages); err != nil {
				t.Error(err)
			}
		})
		if n != 0 {
			t.Errorf("got %v allocations", n)
		}
	})
}

func TestSumIsSafeForConcurrentUse(t *testing.T) {
	data := randomBytes(1 << 16)
	everyPath(t, func(t *testing.T, l *digest.Lanes) {
		var all sync.WaitGroup
		for g := range 8 {
			all.Go(func() {
				messages := make([][]byte, 20)
				for i := range messages {
					messages[i] = data[g+i:][:1000*i]
				}
				sums := make([][digest.Size]byte, len(messages))
				for range 50 {
					if err := l.Sum(sums, messages); err != nil {
						t.Error(err)
					}
				}
				for i, m := range messages {
					if sums[i] != sha256.Sum256(m) {
						t.Errorf("goroutine %d: message %d is wrong", g, i)
					}
				}
			})
		}
		all.Wait()
	})
}

func TestNewLanesRefusesUnknownPath(t *testing.T) {
	for _, p := range []digest.Path{-1, 4} {
		if _, err := digest.NewLanes(p); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("path %d: got %v, want ErrUnsupported", p, err)
		}
	}
}

// TestLanesAreOffInFIPSMode runs itself again in FIPS 140 mode.
func TestLanesAreOffInFIPSMode(t *testing.T) {
	const marker = "DIGEST_TEST_FIPS"
	if os.Getenv(marker) != "" {
		for _, p := range paths {
			l, err := digest.NewLanes(p.path)
			switch {
			case p.path == digest.Pairs || p.path == digest.Sixteen:
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("%s: got %v, want ErrUnsupported", p.name, err)
				}
			case err != nil:
				t.Errorf("%s: %v", p.name, err)
			case l.Width() != 1:
				t.Errorf("%s: got width %d, want 1", p.name, l.Width())
			default:
				compareBlob(t, l, [][]byte{{1, 2}, {3}}, 2, func(int) bool { return false })
			}
		}
		return
	}
	if runtime.GOOS == "js" || runtime.GOOS == "wasip1" {
		t.Skip("no processes here")
	}
	c := exec.Command(os.Args[0], "-test.run=^TestLanesAreOffInFIPSMode$", "-test.v")
	c.Env = append(os.Environ(), marker+"=1", "GODEBUG=fips140=on")
	out, err := c.CombinedOutput()
	if bytes.Contains(out, []byte("incompatible with the purego build tag")) {
		t.Skip("FIPS 140 mode and the tag purego exclude each other")
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLanesAreOffInFIPSMode")) {
		t.Errorf("%v\n%s", err, out)
	}
}

// FuzzSum cuts data into messages of the lengths in cuts.
func FuzzSum(f *testing.F) {
	f.Add([]byte("abc"), []byte{3})
	f.Add(bytes.Repeat([]byte{0xff}, 300), []byte{55, 56, 63, 64, 65, 0})
	f.Add(bytes.Repeat([]byte("segment"), 700), bytes.Repeat([]byte{119, 120, 255}, 7))
	f.Add(bytes.Repeat([]byte{0}, 1<<12), bytes.Repeat([]byte{128}, 16))
	f.Fuzz(func(t *testing.T, data, cuts []byte) {
		var messages [][]byte
		for _, n := range cuts {
			cut := min(int(n), len(data))
			messages, data = append(messages, data[:cut]), data[cut:]
		}
		messages = append(messages, data)
		for _, p := range paths {
			l, err := digest.NewLanes(p.path)
			if errors.Is(err, errors.ErrUnsupported) {
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			compare(t, l, messages)
		}
	})
}

// BenchmarkSegments hashes sixteen stored segments of 1 MiB. Run it with
// GOMAXPROCS=1 for the speed of one core.
func BenchmarkSegments(b *testing.B) {
	const count, segment = 16, 1 << 20
	data := randomBytes(count * segment)
	messages, sums := make([][]byte, count), make([][digest.Size]byte, count)
	for i := range messages {
		messages[i] = data[i*segment:][:segment]
	}
	b.Run("crypto", func(b *testing.B) {
		b.SetBytes(count * segment)
		for b.Loop() {
			for i, m := range messages {
				sums[i] = sha256.Sum256(m)
			}
		}
	})
	for _, p := range paths {
		for _, n := range []int{2, 8, count} {
			b.Run(fmt.Sprintf("%s/%d", p.name, n), func(b *testing.B) {
				l := lanesOf(b, p.path)
				b.SetBytes(int64(n) * segment)
				for b.Loop() {
					if err := l.Sum(sums[:n], messages[:n]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
