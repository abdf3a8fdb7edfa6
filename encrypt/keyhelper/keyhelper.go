// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package keyhelper wraps keys by way of another program, so that any broker,
// HSM or key service is reached without linking it.
//
// A helper is an executable that speaks the keyprovider protocol of ocicrypt on
// stdin and stdout: one JSON request, one JSON answer, one process for each call
// (docs/KEYS.md, Key helpers). There are two kinds. [Open] is for helpers that
// were built with [Main], in ten lines around any [encrypt.Recipient] and
// [encrypt.Identity]: a stanza made through one is the stanza that the same
// provider makes where it is linked, so that either reads what the other wrote.
// [OCICrypt] is for every other program that speaks the protocol; its stanzas
// have the type [TypeOCICrypt].
//
// What a program is run with comes from a [Config] and never from a stanza. It
// starts with PATH, HOME, the folder for temporary files and GODEBUG (which says
// whether FIPS 140-3 is enforced) as its whole environment unless Env says more,
// in a process group of its own that is killed when the context ends, and may
// answer 256 KiB. Being in the background of a terminal, it cannot read from it: a
// program that needs a PIN or a touch asks by other means and needs a longer
// Timeout.
//
// A helper is handed the key, or hands it over: it is trusted with it as the
// provider inside would be. What it writes to stderr is quoted in errors, cut to
// 512 bytes, with everything left out that looks like encoded bytes; that is a
// net for accidents and no defence against a program that means to give the key
// away. The key crosses two pipes and is, for the time of a call, in ordinary
// memory on both sides; this package wipes the buffers that are its own.
//
// A [Helper] is safe for concurrent use; calls run in processes of their own,
// and how many there are at a time is for the caller to bound.
package keyhelper

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/program"
)

// TypeOCICrypt is the type of stanzas that a foreign keyprovider wraps
// (FORMAT.md §8.4).
const TypeOCICrypt = "ocicrypt"

// Config says which program to run, and how.
type Config struct {
	// Path is the program: an absolute path, or a name without a separator,
	// which is looked up in PATH once. Everything else is an error, and so is a
	// name found by way of the current directory.
	Path string
	// Args are its arguments. Other users of the host can read them.
	Args []string
	// Env is what the program finds in its environment besides PATH, HOME,
	// GODEBUG and the folder for temporary files: "NAME=value", or "NAME" and "PREFIX_*" for
	// variables of this process that are passed on where they are set.
	Env []string
	// Timeout is for one call. If less than or equal to 0, that of the provider in
	// a helper built with Main is used where it has one ([encrypt.Timed]), else a
	// default (currently 10 seconds); more than two minutes are two minutes.
	Timeout time.Duration
}

const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 2 * time.Minute
)

// A Helper is a [encrypt.Recipient] and an [encrypt.Identity] for one key of one
// program. It implements [encrypt.Keyed], [encrypt.Caller], [encrypt.Classed]
// and [encrypt.Timed] and formats as a fixed text.
type Helper struct {
	config  Config
	key     string
	foreign string // provider name in the protocol; empty: built with Main
	desc    description
}

// Lookup returns the path of the helper called name: the program
// modelsec-helper-NAME in PATH. A name has 1 to 32 of a-z, 0-9 and inner
// hyphens.
func Lookup(name string) (string, error) {
	if !helperName.MatchString(name) {
		return "", fmt.Errorf("keyhelper: helper name %.40q; want 1 to 32 of a-z, 0-9 and inner hyphens", name)
	}
	return find("modelsec-helper-" + name)
}

var helperName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// find is the rule of Config.Path.
func find(path string) (string, error) {
	found, err := program.Find(path)
	if err != nil {
		return "", fmt.Errorf("keyhelper: %w", err)
	}
	return found, nil
}

// Open asks a helper that was built with [Main] what it knows about key, in the
// helper's own notation, and returns a Helper for it. An error says which
// program failed, and [encrypt.ErrDenied] and its like where the helper said so.
func Open(ctx context.Context, c Config, key string) (*Helper, error) {
	h, err := newHelper(c, key)
	if err != nil {
		return nil, err
	}
	req := request{Op: opDescribe, Unwrap: unwrapParams{Config: &decryptConfig{Parameters: h.parameters(nil)}}}
	answer, err := h.call(ctx, req)
	if err != nil {
		return nil, err
	}
	if answer.Describe == nil {
		return nil, h.errorf("it has not been built with keyhelper.Main: it answers %s with something else", opDescribe)
	}
	if err := answer.Describe.check(); err != nil {
		return nil, h.errorf("%w", err)
	}
	h.desc = *answer.Describe
	if seconds := h.desc.Seconds; c.Timeout <= 0 && seconds > 0 {
		h.config.Timeout = time.Duration(min(seconds, int64(maxTimeout/time.Second))) * time.Second
	}
	return h, nil
}

// OCICrypt returns a Helper for a keyprovider of ocicrypt. provider is its name
// in the protocol and parameter what it is told there about the key to use. Both
// go into the key id, so whoever wraps and whoever unwraps must name the same.
// The wrapping counts as [encrypt.Classical]: the protocol does not say better.
func OCICrypt(c Config, provider, parameter string) (*Helper, error) {
	h, err := newHelper(c, parameter)
	if err != nil {
		return nil, err
	}
	if !providerName.MatchString(provider) || strings.HasPrefix(provider, "modelsec.") {
		return nil, fmt.Errorf("keyhelper: keyprovider name %.80q; want 1 to 64 letters, digits, dots and hyphens, and no modelsec. in front", provider)
	}
	h.foreign = provider
	h.desc = description{Type: TypeOCICrypt, Resource: []byte(provider + "\x00" + parameter), Class: encrypt.Classical.String()}
	return h, nil
}

var providerName = regexp.MustCompile(`^[A-Za-z0-9.-]{1,64}$`)

func newHelper(c Config, key string) (*Helper, error) {
	path, err := find(c.Path)
	if err != nil {
		return nil, err
	}
	if len(key) > maxKey {
		return nil, fmt.Errorf("keyhelper: the name of a key has %d bytes, limit %d", len(key), maxKey)
	}
	c.Path = path
	if c.Timeout <= 0 {
		c.Timeout = defaultTimeout
	}
	c.Timeout = min(c.Timeout, maxTimeout)
	return &Helper{config: c, key: key}, nil
}

// Type returns the type of the stanzas that the helper makes.
func (h *Helper) Type() string { return h.desc.Type }

// Class returns what the helper says about its wrapping.
func (h *Helper) Class() encrypt.WrapClass {
	class, err := encrypt.ParseWrapClass(h.desc.Class)
	if err != nil {
		return encrypt.Classical
	}
	return class
}

// KeyID returns the id of the key in the artifact of b.
func (h *Helper) KeyID(b encrypt.Binding) string { return b.KeyID(h.desc.Type, h.desc.Resource) }

// CallsOut returns true.
func (h *Helper) CallsOut() bool { return true }

// Timeout returns how long one call may take.
func (h *Helper) Timeout() time.Duration { return h.config.Timeout }

// Wrap implements [encrypt.Recipient]. A stanza of another type or key id than
// the helper announced is an error.
func (h *Helper) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	answer, err := h.call(ctx, request{Op: opWrap, Wrap: wrapParams{
		Config: &encryptConfig{Parameters: h.parameters(b.Context())},
		Data:   key,
	}})
	if err != nil {
		return encrypt.Stanza{}, err
	}
	body := answer.Wrap.Annotation
	if len(body) == 0 {
		return encrypt.Stanza{}, h.errorf("it returned no wrapped key")
	}
	if h.foreign != "" {
		return encrypt.Stanza{Type: h.desc.Type, KeyID: h.KeyID(b), Body: body}, nil
	}
	s, err := decodeStanza(body)
	if err != nil {
		return encrypt.Stanza{}, h.errorf("%w", err)
	}
	if s.Type != h.desc.Type || s.KeyID != h.KeyID(b) {
		return encrypt.Stanza{}, h.errorf("it returned a stanza of another type or key than it had announced")
	}
	return s, nil
}

// Unwrap implements [encrypt.Identity].
func (h *Helper) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != h.desc.Type || s.KeyID != h.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	annotation := s.Body
	if h.foreign == "" {
		annotation = encodeStanza(s)
	} else if len(s.Params) != 0 {
		return nil, h.errorf("stanza with params: %w", encrypt.ErrDecrypt)
	}
	answer, err := h.call(ctx, request{Op: opUnwrap, Unwrap: unwrapParams{
		Config:     &decryptConfig{Parameters: h.parameters(b.Context())},
		Annotation: annotation,
	}})
	if err != nil {
		return nil, err
	}
	if len(answer.Unwrap.Data) == 0 {
		return nil, h.errorf("it returned no key: %w", encrypt.ErrDecrypt)
	}
	return answer.Unwrap.Data, nil
}

// parameters is what the program is told beside the key: docs/KEYS.md, Key helpers.
func (h *Helper) parameters(bound []byte) map[string][][]byte {
	p := map[string][][]byte{paramVersion: {[]byte("1")}}
	if bound != nil {
		p[paramContext] = [][]byte{bound}
	}
	name := paramKey
	if h.foreign != "" {
		name = h.foreign
	}
	p[name] = [][]byte{[]byte(h.key)}
	return p
}

// errorf names the program.
func (h *Helper) errorf(format string, args ...any) error {
	return fmt.Errorf("keyhelper: %s: %w", filepath.Base(h.config.Path), fmt.Errorf(format, args...))
}

func (h *Helper) text() string { return "keyhelper.Helper(" + filepath.Base(h.config.Path) + ")" }

// String returns a fixed text.
func (h *Helper) String() string { return h.text() }

// GoString returns a fixed text.
func (h *Helper) GoString() string { return h.text() }

// Format writes a fixed text for every verb: Env may hold a credential.
func (h *Helper) Format(f fmt.State, _ rune) { io.WriteString(f, h.text()) }

// MarshalJSON returns a fixed text.
func (h *Helper) MarshalJSON() ([]byte, error) { return []byte(`"keyhelper.Helper"`), nil }

// LogValue returns a fixed text.
func (h *Helper) LogValue() slog.Value { return slog.StringValue(h.text()) }
