// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
)

// maxJournalLine bounds one record: an 8 GiB part has 8,192 segments.
const maxJournalLine = 4 << 20

// journal remembers which layers a push has uploaded, in a file of JSON lines,
// so that the same push can go on where it was killed.
//
// What is signed in the end must not depend on what somebody wrote into that
// file (K6). A plain layer is hashed again from the source, and only its upload
// is skipped. A sealed layer cannot be made again, so its record counts only
// with a proof under the data key; the key is in the journal wrapped for the
// recipients, and unless an identity of the client opens it, the push starts
// over with a new key.
//
// Anybody can wrap a key for a recipient, and whoever chose the data key reads
// the model. So the first line bears a MAC under a secret of an identity of the
// client, and without one that matches, the push starts over as well.
type journal struct {
	mu     sync.Mutex
	f      *os.File
	parts  map[int]journalPart
	prover *encrypt.Prover // nil in the plain profile
}

// journalHead is the first line.
type journalHead struct {
	Version int             `json:"version"`
	Plan    godigest.Digest `json:"plan"`
	Grant   []byte          `json:"grant,omitempty"`
	MAC     []byte          `json:"mac,omitempty"`
}

// sum is the MAC of a first line under the secret of an identity.
func (h journalHead) sum(secret string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(secret), nil, "modelsec/v1/journal", sha256.Size)
	if err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(h.Plan))
	m.Write(h.Grant)
	return m.Sum(nil), nil
}

// keyFile is an identity whose private key is at hand, as those of key files
// are. Key services have no secret to show, and are not asked about a file that
// nobody signed (K14).
type keyFile interface {
	encrypt.Identity
	PEM() string
}

func (c *Client) keyFiles() (out []keyFile) {
	for _, id := range c.Identities {
		if k, ok := id.(keyFile); ok && !encrypt.CallsOut(id) {
			out = append(out, k)
		}
	}
	return out
}

// mine reports whether an identity of the client made the first line.
func (h journalHead) mine(ids []keyFile) bool {
	return slices.ContainsFunc(ids, func(id keyFile) bool {
		sum, err := h.sum(id.PEM())
		return err == nil && hmac.Equal(sum, h.MAC)
	})
}

// journalPart is any other line: a layer that the registry has.
type journalPart struct {
	Layer    int             `json:"layer"`
	Digest   godigest.Digest `json:"digest"`
	Size     int64           `json:"size"`
	Header   string          `json:"header,omitempty"`
	Segments []byte          `json:"segments"`
	Proof    []byte          `json:"proof,omitempty"`
}

// genuine reports whether a record was written by a holder of the data key. Of
// a plain layer nothing is believed that is not hashed again.
func (j *journal) genuine(p journalPart) bool {
	return j.prover == nil || j.prover.Check(uint64(p.Layer), p.claim(), p.Proof)
}

// claim is what the proof of a record is about.
func (p journalPart) claim() []byte {
	return bytes.Join([][]byte{[]byte(p.Digest), fmt.Appendf(nil, "%d", p.Size), []byte(p.Header), p.Segments}, []byte{0})
}

func (j *journal) write(line any) error {
	b, err := json.Marshal(line)
	if err != nil {
		return err
	}
	if _, err := j.f.Write(append(b, '\n')); err != nil {
		return err
	}
	return j.f.Sync()
}

// add records a layer that the registry has.
func (j *journal) add(i int, l *uploaded) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	part := journalPart{Layer: i, Digest: l.digest, Size: l.size, Header: l.header, Segments: l.digests}
	if j.prover != nil {
		part.Proof = j.prover.Prove(uint64(i), part.claim())
	}
	return j.write(part)
}

// finished returns a layer that an earlier attempt uploaded, if the registry
// still has it, or nil.
func (u *uploader) finished(ctx context.Context, i int) (*uploaded, error) {
	if u.journal == nil {
		return nil, nil
	}
	rec, ok := u.journal.parts[i]
	if !ok {
		return nil, nil
	}
	out := &uploaded{digest: rec.Digest, size: rec.Size, header: rec.Header, digests: rec.Segments}
	if _, err := hex.DecodeString(rec.Header); err != nil || len(rec.Segments)%digest.Size != 0 || out.digest.Validate() != nil {
		return nil, nil
	}
	ok, err := u.store.Has(ctx, ocispec.Descriptor{MediaType: layerMediaType, Digest: out.digest, Size: out.size})
	if err != nil || !ok {
		return nil, err
	}
	if u.encrypted() {
		u.done.Add(u.plan.layers[i].content)
	} else if out, err = u.hash(ctx, i, rec.Digest, nil); out == nil || err != nil {
		return nil, err
	}
	u.found.Add(u.plan.layers[i].content)
	return out, nil
}

// end closes the journal, and removes it where the push is complete.
func (j *journal) end(complete bool) error {
	err := j.f.Close()
	if complete {
		err = errors.Join(err, os.Remove(j.f.Name()))
	}
	return err
}
