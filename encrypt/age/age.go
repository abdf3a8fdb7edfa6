// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package age wraps the keys of models for age: native X25519 and post-quantum
// hybrid keys, keys of hardware tokens, SSH keys, and everything that an
// age-plugin-NAME program knows.
//
// A stanza is a whole binary age file of the 128 bytes of a grant (FORMAT.md
// §8.2) for one recipient, as age itself writes it. age takes no associated data:
// the binding is in the bytes, which package encrypt compares.
//
// [ParseRecipient] and [ParseIdentity] take what age prints. Native keys do no
// I/O. For a plugin the program is run, as age runs it: from PATH, with the
// environment of this process and with a [plugin.ClientUI] to speak through. age
// has no way to end a plugin that does not answer: a call whose context ends
// returns, the program goes on, and at most four of them do for one key. Behind
// package keyhelper they die with the helper. What a plugin gives as the reason of
// a failure is withheld, since it knows the key to the key; what it has to say to
// the user goes to the UI.
//
// What does not open is encrypt.ErrDecrypt, of a plugin too where it says so.
//
// Passphrases are no recipients here, not even by way of a plugin: what lies at a
// registry would be an oracle for guesses for ever.
//
// age is not made of approved algorithms: while FIPS 140-3 is enforced everything
// here is encrypt.ErrFIPS.
package age

import (
	"bytes"
	"context"
	"crypto/fips140"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"time"

	"filippo.io/age"
	"filippo.io/age/plugin"

	"github.com/modelsec/modelsec-go/encrypt"
)

// Type is the type of the stanzas of this package (FORMAT.md §8.4).
const Type = "age"

// Options are the optional settings of [ParseRecipient] and [ParseIdentity].
type Options struct {
	// UI is what plugins speak through. Its functions may be called
	// concurrently. Nil: a plugin that asks anything is refused it.
	UI *plugin.ClientUI
	// Timeout is for one call of a plugin; somebody may have to touch a token.
	// If less than or equal to 0, a default (currently one minute) is used; more
	// than two minutes are two minutes. Native keys have no use for it.
	Timeout time.Duration
}

// key is what both sides of a key have in common.
type key struct {
	public  string // as age or SSH write it
	plugin  string // name of the program; empty: there is none
	timeout time.Duration
	ui      *plugin.ClientUI
	running chan struct{} // holds one for each program that runs
}

// maxRunning is how many programs of one key run at a time.
const maxRunning = 4

// Resource is what the key id is made from: the public key as text.
func (k *key) Resource() []byte { return []byte(k.public) }

// KeyID returns the id of the key in the artifact of b.
func (k *key) KeyID(b encrypt.Binding) string { return b.KeyID(Type, k.Resource()) }

// CallsOut reports whether a plugin is run.
func (k *key) CallsOut() bool { return k.plugin != "" }

// Timeout returns how long one call may take.
func (k *key) Timeout() time.Duration { return k.timeout }

// A Recipient is a public key of age. It implements encrypt.Recipient, Keyed,
// Classed and Timed, and is safe for concurrent use.
type Recipient struct {
	key
	inner age.Recipient
	class encrypt.WrapClass
}

// Class returns encrypt.PostQuantum where age labels what it wraps so.
func (r *Recipient) Class() encrypt.WrapClass { return r.class }

// String returns the public key.
func (r *Recipient) String() string { return r.public }

// Wrap implements encrypt.Recipient.
func (r *Recipient) Wrap(ctx context.Context, key []byte, b encrypt.Binding) (encrypt.Stanza, error) {
	if err := approved(); err != nil {
		return encrypt.Stanza{}, err
	}
	body, err := r.run(ctx, key, func(key []byte) ([]byte, error) {
		var body bytes.Buffer
		w, err := age.Encrypt(&body, guarded{r})
		if err != nil {
			return nil, err
		}
		if _, err := w.Write(key); err != nil {
			return nil, err
		}
		err = w.Close()
		return body.Bytes(), err
	})
	if err != nil {
		return encrypt.Stanza{}, r.failure("wrap", err)
	}
	return encrypt.Stanza{Type: Type, KeyID: r.KeyID(b), Body: body}, nil
}

// guarded looks at what a recipient makes of the key of an age file.
type guarded struct{ r *Recipient }

var (
	errPassphrase = errors.New("it wraps with a passphrase, which a registry must not be given to guess")
	errClass      = errors.New("it wraps with another class than when it was configured")
)

// Wrap implements age.Recipient.
func (g guarded) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	stanzas, _, err := g.WrapWithLabels(fileKey)
	return stanzas, err
}

// WrapWithLabels implements age.RecipientWithLabels.
func (g guarded) WrapWithLabels(fileKey []byte) ([]*age.Stanza, []string, error) {
	stanzas, class, labels, err := wrapFileKey(g.r.inner, fileKey)
	if err == nil && class != g.r.class {
		err = errClass
	}
	return stanzas, labels, err
}

func wrapFileKey(r age.Recipient, fileKey []byte) (stanzas []*age.Stanza, class encrypt.WrapClass, labels []string, err error) {
	if l, ok := r.(age.RecipientWithLabels); ok {
		stanzas, labels, err = l.WrapWithLabels(fileKey)
	} else {
		stanzas, err = r.Wrap(fileKey)
	}
	if err != nil {
		return nil, encrypt.Classical, nil, err
	}
	for _, s := range stanzas {
		if s.Type == "scrypt" {
			return nil, encrypt.Classical, nil, errPassphrase
		}
	}
	if slices.Contains(labels, "postquantum") {
		class = encrypt.PostQuantum
	}
	return stanzas, class, labels, nil
}

// probe learns the class of a recipient from wrapping a key that opens nothing.
func (r *Recipient) probe(ctx context.Context) error {
	class, err := r.run(ctx, nil, func([]byte) ([]byte, error) {
		fileKey := make([]byte, 16)
		rand.Read(fileKey)
		_, class, _, err := wrapFileKey(r.inner, fileKey)
		return []byte{byte(class)}, err
	})
	if err != nil {
		return r.failure("wrap", err)
	}
	r.class = encrypt.WrapClass(class[0])
	return nil
}

// An Identity is a private key of age. It implements encrypt.Identity, Keyed,
// Caller and Timed, is safe for concurrent use, and formats as a fixed text.
type Identity struct {
	key
	inner age.Identity
}

// Unwrap implements encrypt.Identity.
func (i *Identity) Unwrap(ctx context.Context, s encrypt.Stanza, b encrypt.Binding) ([]byte, error) {
	if s.Type != Type || s.KeyID != i.KeyID(b) {
		return nil, encrypt.ErrNotMine
	}
	if err := approved(); err != nil {
		return nil, err
	}
	if len(s.Params) != 0 {
		return nil, fmt.Errorf("age stanza: %w", encrypt.ErrDecrypt)
	}
	out, err := i.run(ctx, s.Body, func(body []byte) ([]byte, error) {
		r, err := age.Decrypt(bytes.NewReader(body), i.inner)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(r, 129)) // one more than there is
	})
	if err != nil {
		clear(out)
		return nil, i.failure("unwrap", err)
	}
	return out, nil
}

// String returns a fixed text.
func (i *Identity) String() string { return redacted }

// GoString returns a fixed text.
func (i *Identity) GoString() string { return redacted }

// Format writes a fixed text for every verb.
func (i *Identity) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// MarshalJSON returns a fixed text.
func (i *Identity) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// LogValue returns a fixed text.
func (i *Identity) LogValue() slog.Value { return slog.StringValue(redacted) }

const redacted = "age.Identity(redacted)"

func approved() error {
	if fips140.Enforced() {
		return fmt.Errorf("%w: age", encrypt.ErrFIPS)
	}
	return nil
}

// run returns what f makes of in, and waits for it no longer than ctx where a
// program is run. Then f goes on alone, with a copy of in that is wiped like what
// it returns.
func (k *key) run(ctx context.Context, in []byte, f func(in []byte) ([]byte, error)) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if k.plugin == "" {
		return f(in)
	}
	select {
	case k.running <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	in = bytes.Clone(in)
	go func() {
		defer func() { <-k.running }()
		defer clear(in)
		out, err := f(in)
		select {
		case done <- result{out, err}:
		case <-ctx.Done():
			clear(out)
		}
	}()
	select {
	case r := <-done:
		return r.out, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// failure says what went wrong without the words of a plugin.
func (k *key) failure(op string, err error) error {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, errPassphrase), errors.Is(err, errClass):
		return fmt.Errorf("age: %s for %.80s: %w", op, k.public, err)
	case k.plugin == "":
		return fmt.Errorf("age stanza: %w", encrypt.ErrDecrypt)
	}
	if _, ok := errors.AsType[*plugin.NotFoundError](err); ok {
		return fmt.Errorf("age: %s for %.80s: no program age-plugin-%s in PATH", op, k.public, k.plugin)
	}
	if _, ok := errors.AsType[*age.NoIdentityMatchError](err); ok && op == "unwrap" {
		return fmt.Errorf("age stanza: age-plugin-%s: %w", k.plugin, encrypt.ErrDecrypt)
	}
	return fmt.Errorf("age: %s for %.80s: age-plugin-%s failed", op, k.public, k.plugin)
}
