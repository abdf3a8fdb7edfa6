// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec

import (
	"context"
	"crypto/rand"
	"fmt"
	"io/fs"
	"strings"
	"time"

	godigest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/digest"
	"github.com/modelsec/modelsec-go/internal/index"
	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/registry"
)

// PushOptions say what a push makes of the source. Nil pushes an unsigned
// plain artifact.
type PushOptions struct {
	// Recipients can open the artifact; any makes it encrypted. They must be
	// of the post-quantum class unless AllowClassical says why not.
	Recipients []encrypt.Recipient

	// AllowClassical is the reason for which recipients without post-quantum
	// protection are accepted. The index records that they were.
	AllowClassical string

	// Signer signs a release statement, every statement of Statements, and the
	// grant. Nil: nothing is signed, and only a policy that accepts unsigned
	// artifacts will open it.
	Signer provenance.Signer

	// Statements are signed with the manifest as their subject. Without a
	// Signer they are an error.
	Statements []provenance.Statement

	// Name is the name of the model in its release statement. Default: the
	// repository path without host; a layout on disk has none and needs this.
	Name string

	// Sequence orders releases. Default: seconds since 1970.
	Sequence uint64

	// Expires is when the release must no longer be opened by tag. Zero: never.
	Expires time.Time

	// Config describes the model to ModelPack tools. Nil: derived from the
	// name and the files. The encrypted profile does not publish it.
	Config *Config

	// Exclude are path.Match patterns, tried on the path, its last element and
	// the directories above, in addition to .git, .gitattributes, .gitignore,
	// .cache, .DS_Store and __pycache__.
	Exclude []string

	// FollowSymlinks pushes what links point to. Default: a link is an error,
	// since it may lead out of the directory that is to be published.
	FollowSymlinks bool

	// LayerSize is the size in bytes at which files are cut into layers, at most
	// 8 GiB. Default: 512 MiB or total/400 in the encrypted profile. In the plain
	// profile files stay whole by default, because ModelPack tools cannot
	// put the parts of one together again.
	LayerSize int64

	// Journal is a file that remembers what was uploaded, so that a push that
	// was killed goes on where it was when it is repeated with the same source
	// and options. An encrypted push must use the same key, so it goes on only
	// if an identity of the client, a key file, opens what the recipients can
	// open. The file is removed when the push is complete. Empty: none.
	Journal string

	// Reuse names an earlier plain artifact, by tag or digest, in the same
	// repository, another of the same host, or the same layout. Layers of the same
	// path that did not change since are not sent again: they are hashed, and taken
	// over from it where they have its digest. Nothing that it says is believed,
	// and no policy judges it. A layer that changed is read twice: up to the change,
	// or to its end where the earlier artifact has no index with the same size of
	// segments. So is one that the registry turns out not to mount. With Recipients
	// it is an error, since every encryption makes other bytes. Empty: everything
	// is sent.
	Reuse string

	// FileDigests is called with the SHA-256 of every file, by path, when all of
	// them were read and sent and before anything refers to them. They come from
	// the same pass as the digests of the layers, so that a signature over the
	// files (provenance/oms) costs no second reading. Its error ends the push. It
	// is for plain artifacts with whole files: with Recipients or a LayerSize it
	// is an error. Nil: nothing is called.
	FileDigests func(ctx context.Context, files map[string]godigest.Digest) error

	segmentSize int64 // tests only: small artifacts with many segments
}

// Push publishes the files of src under ref and returns the descriptor of the
// manifest. Every file is read once, but for what Reuse and Journal compare. Files that have an io.ReaderAt (os.DirFS,
// embed.FS) are cut into layers without reading what comes before.
//
// The order is layers, manifest, attestations, grant, tag: a reader never sees
// a tag without its evidence, and a push that fails leaves the tag as it was.
// Where ref has no tag, the artifact is pushed by digest only; a digest in ref
// is an error.
func (c *Client) Push(ctx context.Context, ref string, src fs.FS, o *PushOptions) (ocispec.Descriptor, error) {
	c.init()
	op := c.begin("push", ref)
	if o == nil {
		o = &PushOptions{}
	}
	d, err := c.push(ctx, op, src, o)
	op.digest = d.Digest
	err = op.outcome(ctx, Event{Bytes: op.sent()}, err)
	return d, op.fail(err)
}

func (c *Client) push(ctx context.Context, op *operation, src fs.FS, o *PushOptions) (_ ocispec.Descriptor, err error) {
	target, store, err := c.openWrite(ctx, op)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	name, err := o.check(target)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	profile := index.Plain
	if len(o.Recipients) > 0 {
		profile = index.Encrypted
	}
	files, err := listSource(ctx, src, o)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	p, err := plan(files, profile, o.LayerSize, o.segmentSize)
	if err != nil {
		return ocispec.Descriptor{}, err
	}

	u := &uploader{operation: op, store: store, target: target, src: src, plan: p, fileDigests: o.FileDigests != nil}
	u.memory.Heap = p.total < fewSegments*p.segment
	defer u.memory.Close()
	if u.lanes, err = digest.NewLanes(digest.Auto); err != nil {
		return ocispec.Descriptor{}, err
	}
	if profile == index.Encrypted {
		u.key = encrypt.NewKey()
		defer func() { u.key.Close() }()
		rand.Read(u.id[:])
	}
	if o.Journal != "" {
		if err := u.openJournal(ctx, o.Journal, o.Recipients, target.Name); err != nil {
			return ocispec.Descriptor{}, err
		}
		defer func() { err = join(err, u.journal.end(err == nil)) }()
	}
	if o.Reuse != "" {
		if err := u.openEarlier(ctx, o.Reuse); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	layers, err := u.uploadAll(ctx)
	u.earlier.release()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if o.FileDigests != nil {
		if err := o.FileDigests(ctx, p.fileDigests(layers)); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	manifest, indexDigest, err := u.finish(ctx, layers, o, name)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	op.digest = manifest.Digest

	var tags []string
	if target.Tag != "" {
		tags = []string{target.Tag}
	}
	referrers, err := u.attest(ctx, manifest, indexDigest, o, name, tags)
	if err != nil {
		return manifest, err
	}
	if err := readBack(ctx, store, manifest, referrers); err != nil {
		return manifest, err
	}
	if target.Tag != "" {
		return manifest, store.Tag(ctx, manifest, target.Tag)
	}
	return manifest, nil
}

// check refuses options that contradict each other and returns the name of the
// model.
func (o *PushOptions) check(target registry.Reference) (string, error) {
	if target.Digest != "" {
		return "", fmt.Errorf("%w: a push makes its digest; remove it from the reference", ErrConfig)
	}
	if len(o.Statements) > 0 && o.Signer == nil {
		return "", fmt.Errorf("%w: statements need a Signer", ErrConfig)
	}
	if o.FileDigests != nil && (len(o.Recipients) > 0 || o.LayerSize != 0) {
		// What is said of plaintext must not travel in the clear (K17), and no layer
		// has the digest of a file that was cut.
		return "", fmt.Errorf("%w: FileDigests is for plain artifacts whose files are not cut: leave out Recipients and LayerSize", ErrConfig)
	}
	if err := o.checkReuse(target); err != nil {
		return "", err
	}
	least := encrypt.PostQuantum
	if o.AllowClassical != "" {
		least = encrypt.Classical
	}
	if err := encrypt.CheckClass(least, o.Recipients...); err != nil {
		return "", fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if o.Name != "" {
		return o.Name, nil
	}
	name := defaultName(target.Name)
	if name == "" && o.Signer != nil {
		return "", fmt.Errorf("%w: %s has no name that a release could bear; set Name", ErrConfig, target.Name)
	}
	return name, nil
}

// defaultName is the repository path without host, or nothing for a layout.
func defaultName(repository string) string {
	if strings.HasPrefix(repository, ociPrefix) {
		return ""
	}
	_, name, _ := strings.Cut(repository, "/")
	return name
}

// uploadAll uploads the layers, some at a time.
func (u *uploader) uploadAll(ctx context.Context) ([]*uploaded, error) {
	var total int64 // with the framing of packed files
	for _, l := range u.plan.layers {
		total += l.content
	}
	defer u.watch(total)()
	layers := make([]*uploaded, len(u.plan.layers))
	work := newCrew(ctx, len(layers), func(part context.Context, i int) (err error) {
		layers[i], err = u.upload(part, ctx, i)
		return err
	})
	first := u.width()
	u.pace = newPushPace(work, cap(u.c.lanes), u.plan.segment, first, u.room())
	work.resize(first)
	err := work.wait()
	// K46: what others learned of the lanes since is about these digests too.
	return layers, join(err, u.lanes.Err())
}

// width is how many layers are uploaded at a time, to begin with.
func (u *uploader) width() int {
	for i := range u.plan.layers {
		if !u.small(i) {
			return pushParts
		}
	}
	return smallParts
}
