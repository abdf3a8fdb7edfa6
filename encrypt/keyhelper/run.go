// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keyhelper

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// lastWords is how long the pipes of a program stay open after its end, for
// children that it left behind.
const lastWords = time.Second

// call runs the program once.
func (h *Helper) call(ctx context.Context, req request) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, err := json.Marshal(req)
	if err != nil {
		panic("keyhelper: strings and bytes do not encode: " + err.Error())
	}
	defer clear(in)
	bounded, cancel := context.WithTimeout(ctx, h.config.Timeout)
	defer cancel()
	stdout := &capped{limit: maxMessage, full: cancel}
	stderr := &capped{limit: maxStderr}
	defer func() { clear(stdout.kept.Bytes()) }()
	runErr := h.run(bounded, in, stdout, stderr)
	switch {
	case ctx.Err() != nil:
		return nil, h.errorf("%w", ctx.Err())
	case stdout.over:
		return nil, h.errorf("it answered more than %d bytes", maxMessage)
	case bounded.Err() != nil:
		return nil, h.errorf("%w: no answer in %v", encrypt.ErrUnavailable, h.config.Timeout)
	}
	var a answer
	decodeErr := strictjson.UnmarshalLenient(stdout.kept.Bytes(), &a, maxMessage)
	switch {
	case decodeErr == nil && a.Error != nil:
		said := readable(a.Error.Message)
		if known := errOf(a.Error.Code); known != nil {
			return nil, h.errorf("%w: %s", known, said)
		}
		return nil, h.errorf("it failed: %s", said)
	case runErr != nil:
		return nil, h.errorf("%w: %s", runErr, readable(stderr.kept.String()))
	case decodeErr != nil:
		// The document may hold a key, so nothing of it is quoted.
		return nil, h.errorf("it answered %d bytes that are no keyprovider result", stdout.kept.Len())
	}
	return &a, nil
}

func (h *Helper) run(ctx context.Context, in []byte, stdout, stderr *capped) error {
	cmd := exec.CommandContext(ctx, h.config.Path, h.config.Args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), stdout, stderr
	cmd.Env = environment(h.config.Env)
	cmd.WaitDelay = lastWords
	ownGroup(cmd)
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		// A child holds a pipe of ours, so the group still exists.
		killGroup(cmd.Process.Pid)
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return errors.New(exit.String()) // without the stderr that ExitError may hold
	}
	return err
}

// environment returns the variables that Config.Env asks for.
func environment(asked []string) []string {
	var env []string
	pass := func(match func(name string) bool) {
		for _, v := range os.Environ() {
			if name, _, ok := strings.Cut(v, "="); ok && name != "" && match(name) {
				env = append(env, v)
			}
		}
	}
	for _, a := range slices.Concat(basicEnv(), asked) {
		if strings.Contains(a, "=") {
			env = append(env, a)
		} else if prefix, ok := strings.CutSuffix(a, "*"); ok && prefix != "" {
			pass(func(name string) bool { return strings.HasPrefix(name, prefix) })
		} else {
			pass(func(name string) bool { return name == a })
		}
	}
	return env
}

// capped keeps the first limit bytes of what a program writes.
type capped struct {
	limit int
	full  func() // called when more comes; nil: the rest is dropped
	kept  bytes.Buffer
	over  bool
}

// Write implements [io.Writer]. It never fails, so that a program which says too
// much is ended by the context and not by a signal that hides why.
func (c *capped) Write(b []byte) (int, error) {
	room := min(len(b), c.limit-c.kept.Len())
	c.kept.Write(b[:room])
	if room < len(b) && !c.over {
		c.over = true
		if c.full != nil {
			c.full()
		}
	}
	return len(b), nil
}

const (
	maxStderr = 4 << 10
	maxQuoted = 512
	// maxWord is the longest run of digits and letters that may stay: a key of
	// 32 bytes has 43 in base64, 64 in hex, 63 and more in decimal numbers.
	maxWord = 40
)

// readable returns what may be quoted of a program's words: printable ASCII
// without anything that could be encoded bytes. Text with any other byte in it
// may be a raw key and is withheld as a whole.
func readable(text string) string {
	text = strings.TrimSpace(text)
	if len(text) > maxStderr {
		text = text[:maxStderr]
	}
	if text == "" {
		return "it gave no reason"
	}
	if strings.ContainsFunc(text, func(r rune) bool { return (r < ' ' || r > '~') && r != '\n' && r != '\r' && r != '\t' }) {
		return fmt.Sprintf("its %d bytes of reason are not printable", len(text))
	}
	var out strings.Builder
	for rest := strings.Join(strings.Fields(text), " "); rest != "" && out.Len() < maxQuoted; {
		n := run(rest)
		switch {
		case n == 0:
			out.WriteByte(rest[0])
			n = 1
		case n > maxWord:
			out.WriteString("...")
		default:
			out.WriteString(rest[:n])
		}
		rest = rest[n:]
	}
	return out.String()
}

// run returns how many bytes at the start of s may be one encoded string: of
// base64 and its like, or of hex and numbers with what stands between them. A
// long one without a capital is no base64 but a path.
func run(s string) int {
	word := span(s, func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+/-_=%\\", r)
	})
	numbers := span(s, func(r rune) bool {
		return r >= '0' && r <= '9' || r >= 'a' && r <= 'f' || r >= 'A' && r <= 'F' || strings.ContainsRune(" ,:xX[]{}()", r)
	})
	if numbers > maxWord {
		return max(word, numbers)
	}
	if word > maxWord && strings.ToLower(s[:word]) == s[:word] {
		return maxWord
	}
	return word
}

// span returns how many bytes at the start of s are in the set.
func span(s string, in func(rune) bool) int {
	if n := strings.IndexFunc(s, func(r rune) bool { return !in(r) }); n >= 0 {
		return n
	}
	return len(s)
}
