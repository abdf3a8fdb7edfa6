// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// fingerprint names what is pushed by everything that is known before it is
// read. A journal of another plan is of no use.
func (p *pushPlan) fingerprint(repository string, recipients []encrypt.Recipient) (godigest.Digest, error) {
	type file struct {
		Path string
		Size int64
		Time int64
	}
	doc := struct {
		Repository string
		Profile    string
		Segment    int64
		Files      []file
		Layers     []int64
		Recipients []string
	}{Repository: repository, Profile: string(p.profile), Segment: p.segment}
	for _, f := range p.sources {
		doc.Files = append(doc.Files, file{f.path, f.size, f.modTime.UnixNano()})
	}
	for _, l := range p.layers {
		doc.Layers = append(doc.Layers, l.content)
	}
	for _, r := range recipients {
		// Whoever was dropped since has the key that the journal holds.
		id := fmt.Sprintf("%T", r)
		if named, ok := r.(encrypt.Keyed); ok {
			id = named.KeyID(encrypt.Binding{})
		}
		doc.Recipients = append(doc.Recipients, id)
	}
	slices.Sort(doc.Recipients)
	b, err := json.Marshal(doc)
	return digestOf(b), err
}

// openJournal takes a journal up, or starts it anew. It sets the key and
// artifact id of an encrypted push.
func (u *uploader) openJournal(ctx context.Context, path string, recipients []encrypt.Recipient, repository string) (err error) {
	fingerprint, err := u.plan.fingerprint(repository, recipients)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: the journal %s is not a regular file", ErrConfig, path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	j := &journal{f: f, parts: make(map[int]journalPart)}
	u.journal = j
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if err := u.takeUp(ctx, j, fingerprint); err == nil {
		return nil
	} else if info != nil && info.Size() > 0 {
		u.c.logger().Warn("the journal is of no use, all layers are uploaded again", "journal", path, "reason", err)
	}
	return u.startJournal(ctx, j, fingerprint, recipients)
}

// takeUp reads the journal of an earlier attempt at the same push.
func (u *uploader) takeUp(ctx context.Context, j *journal, fingerprint godigest.Digest) error {
	lines := bufio.NewReaderSize(j.f, maxJournalLine)
	line, err := lines.ReadSlice('\n')
	if err != nil {
		return errors.New("it has no first line")
	}
	end := int64(len(line))
	var head journalHead
	if err := strictjson.Unmarshal(line, &head, maxJournalLine); err != nil {
		return err
	}
	if head.Version != 1 || head.Plan != fingerprint {
		return errors.New("it is of another push, or the source changed")
	}
	var key *encrypt.Key
	var id [16]byte
	if u.encrypted() {
		if !head.mine(u.c.keyFiles()) {
			return errors.New("no key file of the client made it")
		}
		g, err := encrypt.ParseGrant(head.Grant)
		if err != nil {
			return err
		}
		b := encrypt.Binding{ArtifactID: g.ArtifactID, Commitment: g.Commitment, Manifest: fingerprint}
		if !g.Matches(b) {
			return errors.New("its key is of another push")
		}
		if key, err = encrypt.UnwrapKey(ctx, g.Recipients, b, u.c.now(), u.c.Identities...); err != nil {
			return err
		}
		id = g.ArtifactID
		if j.prover, err = encrypt.NewProver(key, id, fingerprint); err != nil {
			key.Close()
			return err
		}
	}
	for {
		line, err := lines.ReadSlice('\n')
		var part journalPart
		if err != nil || strictjson.Unmarshal(line, &part, maxJournalLine) != nil || !j.genuine(part) {
			break // torn by a crash, or not ours: what follows is written again
		}
		j.parts[part.Layer] = part
		end += int64(len(line))
	}
	if key != nil {
		u.key.Close()
		u.key, u.id = key, id
	}
	if err := j.f.Truncate(end); err != nil {
		return err
	}
	_, err = j.f.Seek(end, io.SeekStart)
	return err
}

// startJournal writes the head of a new journal.
func (u *uploader) startJournal(ctx context.Context, j *journal, fingerprint godigest.Digest, recipients []encrypt.Recipient) error {
	head := journalHead{Version: 1, Plan: fingerprint}
	j.parts, j.prover = make(map[int]journalPart), nil
	if u.encrypted() {
		b := encrypt.Binding{ArtifactID: u.id, Commitment: u.key.Commitment(u.id), Manifest: fingerprint}
		stanzas, err := encrypt.WrapKey(ctx, u.key, b, recipients...)
		if err != nil {
			return err
		}
		g := encrypt.Grant{ArtifactID: b.ArtifactID, Commitment: b.Commitment, Manifest: b.Manifest, Recipients: stanzas}
		if head.Grant, err = g.Encode(); err != nil {
			return err
		}
		if ids := u.c.keyFiles(); len(ids) > 0 {
			if head.MAC, err = head.sum(ids[0].PEM()); err != nil {
				return err
			}
		}
		if j.prover, err = encrypt.NewProver(u.key, u.id, fingerprint); err != nil {
			return err
		}
	}
	if err := j.f.Truncate(0); err != nil {
		return err
	}
	if _, err := j.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return j.write(head)
}
