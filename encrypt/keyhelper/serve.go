// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keyhelper

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/strictjson"
	"github.com/opencontainers/go-digest"
)

// A Key is what a helper serves.
type Key struct {
	// Type and Resource are what the key id of its stanzas is made from:
	// [encrypt.Binding.KeyID] has them as arguments.
	Type     string
	Resource []byte
	// Recipient wraps and Identity unwraps. One of them may be nil where the
	// helper can do only the other.
	Recipient encrypt.Recipient
	Identity  encrypt.Identity
}

// Main serves one request on stdin and stdout and ends the process, with status
// 0 where the request was answered and 1 where it failed. open returns the key
// that the configuration of the caller names. This is a whole helper:
//
//	func main() {
//		keyhelper.Main(func(ctx context.Context, name string) (*keyhelper.Key, error) {
//			k, err := mykms.Open(ctx, name)
//			if err != nil {
//				return nil, err
//			}
//			return &keyhelper.Key{Type: "mykms", Resource: []byte(k.Name()), Recipient: k, Identity: k}, nil
//		})
//	}
//
// An error of open, Recipient or Identity reaches the caller as its text, which
// must therefore hold no secret, and as one of [encrypt.ErrDenied],
// [encrypt.ErrDisabled], [encrypt.ErrThrottled], [encrypt.ErrUnavailable] and
// [encrypt.ErrDecrypt] if it is one.
func Main(open func(ctx context.Context, name string) (*Key, error)) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := Serve(ctx, os.Stdin, os.Stdout, open)
	stop()
	if err != nil {
		os.Exit(1)
	}
}

// Serve reads one request from in, of at most 256 KiB, and writes one answer to
// out. The error is the one that was written, or that of reading and writing.
func Serve(ctx context.Context, in io.Reader, out io.Writer, open func(ctx context.Context, name string) (*Key, error)) error {
	a, failed := serve(ctx, in, open)
	if failed != nil {
		a = &answer{Error: &failure{Code: codeOf(failed), Message: failed.Error()}}
	}
	doc, err := json.Marshal(a)
	if err != nil {
		panic("keyhelper: strings and bytes do not encode: " + err.Error())
	}
	defer clear(doc)
	clear(a.Unwrap.Data)
	_, err = out.Write(doc)
	return errors.Join(failed, err)
}

func serve(ctx context.Context, in io.Reader, open func(context.Context, string) (*Key, error)) (*answer, error) {
	doc, err := io.ReadAll(io.LimitReader(in, maxMessage+1))
	defer clear(doc)
	if err != nil {
		return nil, fmt.Errorf("keyhelper: read the request: %w", err)
	}
	var req request
	if err := strictjson.UnmarshalLenient(doc, &req, maxMessage); err != nil {
		return nil, errors.New("keyhelper: the request is no keyprovider request")
	}
	defer clear(req.Wrap.Data)
	var p map[string][][]byte
	switch {
	case req.Op == opWrap && req.Wrap.Config != nil:
		p = req.Wrap.Config.Parameters
	case (req.Op == opUnwrap || req.Op == opDescribe) && req.Unwrap.Config != nil:
		p = req.Unwrap.Config.Parameters
	default:
		return nil, fmt.Errorf("keyhelper: operation %.40q, or its parameters are missing", req.Op)
	}
	if version := parameter(p, paramVersion); string(version) != "1" {
		return nil, fmt.Errorf("keyhelper: version %.10q of the parameters; this helper speaks 1", version)
	}
	k, err := open(ctx, string(parameter(p, paramKey)))
	if err != nil {
		return nil, err
	}
	if req.Op == opDescribe {
		return &answer{Describe: k.describe()}, nil
	}
	b, err := parseContext(parameter(p, paramContext))
	if err != nil {
		return nil, err
	}
	if req.Op == opWrap {
		return k.wrap(ctx, req.Wrap.Data, b)
	}
	return k.unwrap(ctx, req.Unwrap.Annotation, b)
}

func (k *Key) describe() *description {
	d := &description{Type: k.Type, Resource: k.Resource, Class: encrypt.Classical.String()}
	if k.Recipient != nil {
		d.Class = encrypt.ClassOf(k.Recipient).String()
	}
	for _, side := range []any{k.Recipient, k.Identity} {
		if t, ok := side.(encrypt.Timed); ok {
			d.Seconds = max(d.Seconds, int64(t.Timeout()/time.Second))
		}
	}
	return d
}

func (k *Key) wrap(ctx context.Context, key []byte, b encrypt.Binding) (*answer, error) {
	if k.Recipient == nil {
		return nil, errors.New("keyhelper: this helper does not wrap")
	}
	s, err := k.Recipient.Wrap(ctx, key, b)
	if err != nil {
		return nil, err
	}
	if s.Type != k.Type || s.KeyID != b.KeyID(k.Type, k.Resource) {
		return nil, fmt.Errorf("keyhelper: a stanza of type %q whose id is not that of its key", s.Type)
	}
	return &answer{Wrap: wrapResults{encodeStanza(s)}}, nil
}

func (k *Key) unwrap(ctx context.Context, annotation []byte, b encrypt.Binding) (*answer, error) {
	if k.Identity == nil {
		return nil, errors.New("keyhelper: this helper does not unwrap")
	}
	s, err := decodeStanza(annotation)
	if err != nil {
		return nil, fmt.Errorf("keyhelper: %w", err)
	}
	s.Scope, s.NotAfter = b.Scope, b.NotAfter
	data, err := k.Identity.Unwrap(ctx, s, b)
	if err != nil {
		return nil, err
	}
	return &answer{Unwrap: unwrapResults{data}}, nil
}

// parameter returns the one value of a parameter, nil where there is none.
func parameter(p map[string][][]byte, name string) []byte {
	if len(p[name]) != 1 {
		return nil
	}
	return p[name][0]
}

// parseContext is the inverse of [encrypt.Binding.Context] (FORMAT.md §8.2).
func parseContext(c []byte) (encrypt.Binding, error) {
	const label = "modelsec/v1/grant\x00"
	fields, ok := bytes.CutPrefix(c, []byte(label))
	if !ok || len(fields) != 92 {
		return encrypt.Binding{}, fmt.Errorf("keyhelper: %s is not the context of a grant", paramContext)
	}
	b := encrypt.Binding{
		Scope:    encrypt.ScopeArtifact,
		Manifest: digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(fields[28:60])),
	}
	if fields[0] == 1 {
		b.Scope = encrypt.ScopeFiles
	}
	if seconds := binary.BigEndian.Uint64(fields[4:]); seconds > maxSeconds {
		return encrypt.Binding{}, fmt.Errorf("keyhelper: %s with an expiry after the year 9999", paramContext)
	} else if seconds > 0 {
		b.NotAfter = time.Unix(int64(seconds), 0).UTC()
	}
	copy(b.ArtifactID[:], fields[12:28])
	copy(b.Commitment[:], fields[60:])
	if !bytes.Equal(b.Context(), c) {
		return encrypt.Binding{}, fmt.Errorf("keyhelper: %s holds what no grant says", paramContext)
	}
	return b, nil
}

// maxSeconds is the last second that a grant can write.
var maxSeconds = uint64(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix())
