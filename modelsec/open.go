// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	godigest "github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
)

// Verify says whether a policy admits the artifact that ref names, without
// opening it. It is the dry run of Open: the report comes with a refusal too,
// which is a *provenance.PolicyError. Content is not read: see VerifyDeep.
func (c *Client) Verify(ctx context.Context, ref string, p provenance.Policy) (*provenance.Report, error) {
	return c.verify(ctx, "verify", ref, p, (*artifact).checkIndex)
}

// VerifyDeep is Verify, and then reads the whole content: the config and every
// layer are compared with their digests in the manifest and every segment with
// its digest in the index. It needs no key.
func (c *Client) VerifyDeep(ctx context.Context, ref string, p provenance.Policy) (*provenance.Report, error) {
	return c.verify(ctx, "verify", ref, p, (*artifact).checkContent)
}

// checkContent reads everything and compares it with its digests.
func (a *artifact) checkContent(ctx context.Context) error {
	t, err := a.content(ctx)
	if err != nil {
		return err
	}
	defer t.release()
	if _, err := readBlob(ctx, a.store, a.manifest.Config, maxConfig); err != nil {
		return err
	}
	a.report.LayerDigests = "compared"
	return t.compareLayers(ctx, a.operation)
}

func (c *Client) verify(ctx context.Context, name, ref string, p provenance.Policy, more func(*artifact, context.Context) error) (*provenance.Report, error) {
	c.init()
	op := c.begin(name, ref)
	a, err := c.resolve(ctx, op)
	if err != nil {
		return nil, op.fail(err)
	}
	if err := a.judge(ctx, p); err != nil {
		return nil, op.fail(err)
	}
	err = a.enforce(ctx)
	if err == nil {
		err = more(a, ctx)
	}
	return a.report, op.fail(err)
}

// Open opens the artifact that ref names if the policy admits it, and unwraps
// its key. ctx governs Open only. The caller must close the model.
//
// Errors: a refusal is a *provenance.PolicyError with the report; ErrNoKey
// where no identity opens the artifact; ErrFormat and ErrDigest where it is
// not what its publisher made.
func (c *Client) Open(ctx context.Context, ref string, p provenance.Policy) (*Model, error) {
	c.init()
	op := c.begin("open", ref)
	m, err := c.open(ctx, op, p, nil)
	return m, op.fail(err)
}

// OpenFiles is Open for the files named, by their exact paths: what the model
// lists is these and no others. Beside the data key it takes grants of some
// files, if a grant signer of the policy signed them: the paths in such a grant
// are its author's word.
//
// A name that the model does not have or no grant opens is an error, which lists
// what could be opened: a subset is never chosen for the caller. Open on its
// part returns ErrPartial where some files is all that the client may open.
func (c *Client) OpenFiles(ctx context.Context, ref string, p provenance.Policy, names ...string) (*Model, error) {
	c.init()
	op := c.begin("open", ref)
	if len(names) == 0 {
		return nil, op.fail(fmt.Errorf("%w: no files named", ErrConfig))
	}
	m, err := c.open(ctx, op, p, names)
	return m, op.fail(err)
}

// open opens the files named, or all where there are no names.
func (c *Client) open(ctx context.Context, op *operation, p provenance.Policy, names []string) (*Model, error) {
	a, err := c.resolve(ctx, op)
	if err != nil {
		return nil, err
	}
	return a.open(ctx, p, names)
}

func (a *artifact) open(ctx context.Context, p provenance.Policy, names []string) (*Model, error) {
	if err := a.judge(ctx, p); err != nil {
		return nil, err
	}
	if err := a.enforce(ctx); err != nil {
		return nil, err
	}
	read := a.content
	if !a.indexed && a.rule.AllowUnindexed {
		read = a.unindexed
	}
	t, err := read(ctx)
	if err != nil {
		return nil, err
	}
	m := newModel(a, t)
	if a.rule.CompareLayerDigests {
		err = t.compareLayers(ctx, a.operation)
	}
	if err == nil && t.index.Profile == index.Encrypted {
		err = m.unlock(ctx, names)
	}
	if err == nil {
		err = t.only(names)
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// checkIndex reads the index and holds the manifest to it. An artifact that
// the policy admits without one has nothing to hold it to but its digests.
func (a *artifact) checkIndex(ctx context.Context) error {
	if !a.indexed && a.rule.AllowUnindexed {
		return nil
	}
	t, err := a.content(ctx)
	if err == nil {
		err = t.release()
	}
	return err
}

// content reads and checks the index. What it returns holds memory of the
// client's budget until it is released.
func (a *artifact) content(ctx context.Context) (*content, error) {
	if !a.indexed {
		return nil, fmt.Errorf("%w: it has no index: another tool made it, or it was changed since", ErrFormat)
	}
	d := a.indexDescriptor()
	if d.Size > index.MaxSize {
		return nil, fmt.Errorf("%w: index of %d bytes, limit %d", ErrFormat, d.Size, index.MaxSize)
	}
	if err := a.c.budget.hold(indexCost*d.Size, "the index"); err != nil {
		return nil, err
	}
	t := newContent(a, a.store, a.manifest.Layers[:len(a.manifest.Layers)-1])
	t.held = indexCost * d.Size
	err := func() error {
		b, err := readBlob(ctx, a.store, d, index.MaxSize)
		if err != nil {
			return err
		}
		if t.index, err = index.Parse(b); err != nil {
			return fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if err := checkLayers(a.manifest, t.index); err != nil {
			return err
		}
		t.setFiles(t.index.Files)
		return t.start()
	}()
	if err != nil {
		t.release()
		return nil, err
	}
	return t, nil
}

// indexCost is how much memory a parsed index takes for each of its bytes.
const indexCost = 2

func (t *content) setFiles(files []index.File) {
	t.files = files
	t.pieces = index.ByLayer(files, len(t.layers))
}

// release gives the memory of the index back, and closes a private copy.
func (t *content) release() error {
	t.c.budget.release(t.held)
	t.held = 0
	if t.closer != nil {
		return t.closer.Close()
	}
	return nil
}

// unlock unwraps the keys, opens the file list and makes the openers. The
// intent is recorded before a key is used, the outcome after. K44.
func (m *Model) unlock(ctx context.Context, names []string) error {
	b, err := bindingOf(m.content.index, m.desc.Digest)
	if err != nil {
		return err
	}
	if err := m.audit(ctx, Event{Phase: phaseIntent, Allowed: true, Reason: "unwrap the data key"}); err != nil {
		return err
	}
	ring := &keyring{content: m.content, want: names}
	defer ring.close()
	reason := "data key unwrapped"
	if key, entry := m.c.keys.get(b, m.c.now()); key != nil {
		ring.take(key, entry)
		reason = "data key taken, which was unwrapped before"
	} else if err = m.unwrap(ctx, b, ring); err == nil && ring.whole != nil {
		m.c.keys.put(b, ring.whole, ring.entry)
	}
	m.key, m.entry = ring.whole, ring.entry
	if err == nil {
		err = ring.unlock(b)
	}
	if ring.whole == nil {
		reason = fmt.Sprintf("keys of %d files unwrapped", len(m.content.files))
	}
	return m.outcome(ctx, Event{Reason: reason, KeyID: strings.Join(ring.keyIDs, " ")}, err)
}

// opener makes the opener of one layer.
func (t *content) opener(keys encrypt.PartKeys, b encrypt.Binding, layer int) (*encrypt.PartOpener, error) {
	header, err := hex.DecodeString(t.index.Encryption.Headers[layer])
	if err != nil {
		return nil, err
	}
	part := encrypt.Part{ArtifactID: b.ArtifactID, Layer: uint32(layer), Length: t.index.Geometry(layer).Content, SegmentSize: int(t.index.SegmentSize)}
	o, err := encrypt.NewPartOpener(keys, part, header)
	if err != nil {
		return nil, t.layerError(layer, err)
	}
	return o, nil
}

// compareLayers reads every layer in order and compares its own digest and
// those of its segments. K8: two signed truths must not disagree.
func (t *content) compareLayers(ctx context.Context, op *operation) error {
	var total int64
	for _, l := range t.layers {
		total += l.Size
	}
	if err := t.c.budget.borrow(ctx, t.maxStored()); err != nil {
		return err
	}
	defer t.c.budget.repay(t.maxStored())
	defer op.watch(total)()
	buf := make([]byte, t.maxStored())
	for i := range t.layers {
		if err := t.compareLayer(ctx, op, i, buf); err != nil {
			return err
		}
	}
	return nil
}

func (t *content) compareLayer(ctx context.Context, op *operation, layer int, buf []byte) error {
	g, d := t.index.Geometry(layer), t.layers[layer]
	body := openBlob(ctx, t.store, d)
	defer body.Close()
	h := digest.New()
	in := io.TeeReader(body, h)
	if t.index.Profile == index.Encrypted {
		if err := t.checkHeader(layer, in); err != nil {
			return err
		}
		op.done.Add(index.SealHeader)
	}
	for k := range g.Count() {
		_, n := g.Stored(k)
		if _, err := io.ReadFull(in, buf[:n]); err != nil {
			return t.segmentError(layer, k, err)
		}
		if err := t.checkDigest(layer, k, buf[:n]); err != nil {
			return err
		}
		op.done.Add(n)
	}
	if got := godigest.NewDigest(godigest.SHA256, h); got != d.Digest {
		return t.layerError(layer, fmt.Errorf("%w: the index and the manifest disagree about this layer: got %s", ErrDigest, got))
	}
	return nil
}
