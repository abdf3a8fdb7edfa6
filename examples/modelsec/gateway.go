// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/modelsec"
)

// bucket is the one that the gateway has.
const bucket = "model"

// maxKeys is the most that one page lists, as at AWS.
const maxKeys = 1000

const (
	// bodies is how many objects are sent at a time; others wait. Together they
	// have this many pieces in memory.
	bodies = 16
	// pieceSize is what a body is read in, from one multiple of it to the next, so
	// that no segment belongs to two pieces.
	pieceSize = 4 << 20
	// stalled is how long a client may take to receive one piece.
	stalled = 2 * time.Minute
)

// gateway serves the files of a model as S3 does: GET and HEAD of objects, with
// Range, and ListObjectsV2. It can be read only.
type gateway struct {
	model *modelsec.Model
	files []modelsec.File             // by name
	admit func(r *http.Request) error // whether the caller may read
	slots chan []byte                 // one for each body that may be sent, with the memory for its pieces or nil
}

func newGateway(m *modelsec.Model, admit func(r *http.Request) error) *gateway {
	files := m.Files()
	slices.SortFunc(files, func(a, b modelsec.File) int { return strings.Compare(a.Name, b.Name) })
	g := &gateway{model: m, files: files, admit: admit, slots: make(chan []byte, bodies)}
	for range bodies {
		g.slots <- nil
	}
	return g
}

// s3Error is the form of an error.
type s3Error struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	xml.NewEncoder(w).Encode(s3Error{Code: code, Message: message})
}

// ServeHTTP implements http.Handler.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Now().Add(stalled))
	if err := g.admit(r); err != nil {
		// A stranger keeps no connection, and a body that he does not send is not
		// waited for.
		w.Header().Set("Connection", "close")
		control.SetReadDeadline(time.Now().Add(time.Second))
		refuse(w, http.StatusForbidden, "AccessDenied", err.Error())
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "this gateway can be read only")
		return
	}
	name, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case name != bucket:
		refuse(w, http.StatusNotFound, "NoSuchBucket", "the bucket is "+bucket)
	case key != "":
		g.object(w, r, key)
	case r.Method == http.MethodHead:
	case r.URL.Query().Get("list-type") == "2":
		g.list(w, r)
	default:
		refuse(w, http.StatusNotImplemented, "NotImplemented", "this gateway knows GetObject, HeadObject, HeadBucket and ListObjectsV2")
	}
}

// object serves one file. A body that fails ends before its length, so that
// the client sees an error and never wrong bytes.
func (g *gateway) object(w http.ResponseWriter, r *http.Request, key string) {
	i, ok := g.find(key)
	if !ok {
		refuse(w, http.StatusNotFound, "NoSuchKey", "the model has no such file")
		return
	}
	if strings.Contains(r.Header.Get("Range"), ",") {
		refuse(w, http.StatusNotImplemented, "NotImplemented", "a request has one range, as at AWS")
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("ETag", g.etag(i))
	http.ServeContent(&objectWriter{w, g.slots}, r, "", time.Unix(0, 0), &object{g.model, r.Context(), key, g.files[i].Size, 0})
}

// object is a file that is read in pieces. Every piece is a read by itself:
// nothing is fetched ahead, as a range ends where another connection goes on,
// and the readers of a model share what it keeps.
type object struct {
	model    *modelsec.Model
	ctx      context.Context
	name     string
	size, at int64
}

// Read reads to the end of p or of the piece.
func (o *object) Read(p []byte) (int, error) {
	content, err := o.model.ReaderAt(o.ctx, o.name)
	if err != nil {
		return 0, err
	}
	n, err := content.ReadAt(p[:min(int64(len(p)), pieceSize-o.at%pieceSize)], o.at)
	o.at += int64(n)
	return n, err
}

// Seek is asked by http.ServeContent for the size and for the start of a range.
func (o *object) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekEnd {
		offset += o.size
	}
	o.at = offset
	return offset, nil
}

// objectWriter sends what http.ServeContent copies to it in pieces.
type objectWriter struct {
	http.ResponseWriter
	slots chan []byte
}

// ReadFrom implements io.ReaderFrom.
func (w *objectWriter) ReadFrom(src io.Reader) (sent int64, err error) {
	piece := <-w.slots
	if piece == nil {
		piece = make([]byte, pieceSize)
	}
	defer func() { w.slots <- piece }()
	control := http.NewResponseController(w.ResponseWriter)
	for {
		n, err := src.Read(piece)
		control.SetWriteDeadline(time.Now().Add(stalled))
		written, failed := w.Write(piece[:n])
		sent += int64(written)
		if err == io.EOF {
			err = nil
		}
		if err = errors.Join(failed, err); err != nil || n == 0 {
			return sent, err
		}
	}
}

func (g *gateway) find(key string) (int, bool) {
	return slices.BinarySearchFunc(g.files, key, func(f modelsec.File, key string) int { return strings.Compare(f.Name, key) })
}

// etag names a file of a version for good.
func (g *gateway) etag(i int) string {
	return fmt.Sprintf(`"%s-%d"`, g.model.Descriptor().Digest.Encoded(), i)
}

// listResult is the form of a page.
type listResult struct {
	XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
	Name                  string
	Prefix                string
	Delimiter             string `xml:",omitempty"`
	EncodingType          string `xml:",omitempty"`
	MaxKeys, KeyCount     int
	IsTruncated           bool
	ContinuationToken     string `xml:",omitempty"`
	NextContinuationToken string `xml:",omitempty"`
	Contents              []listObject
	CommonPrefixes        []listPrefix
}

type listObject struct {
	Key, LastModified, ETag string
	Size                    int64
	StorageClass            string
}

type listPrefix struct{ Prefix string }

func (g *gateway) list(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	out := listResult{Name: bucket, Delimiter: q.Get("delimiter"), EncodingType: q.Get("encoding-type"), MaxKeys: maxKeys, ContinuationToken: q.Get("continuation-token")}
	prefix, after := q.Get("prefix"), q.Get("start-after")
	if n := q.Get("max-keys"); n != "" {
		v, err := strconv.Atoi(n)
		if err != nil || v < 1 {
			refuse(w, http.StatusBadRequest, "InvalidArgument", "max-keys is a number from 1 on")
			return
		}
		out.MaxKeys = min(v, maxKeys)
	}
	if out.ContinuationToken != "" {
		b, err := base64.RawURLEncoding.DecodeString(out.ContinuationToken)
		if err != nil {
			refuse(w, http.StatusBadRequest, "InvalidArgument", "the continuation-token is none of this gateway")
			return
		}
		after = string(b)
	}
	escape := func(s string) string { return s }
	if out.EncodingType == "url" {
		escape = escapeKey
	}
	last := ""
	for i, f := range g.files {
		shown, group := f.Name, false
		if rest, ok := strings.CutPrefix(f.Name, prefix); ok && out.Delimiter != "" {
			if head, _, found := strings.Cut(rest, out.Delimiter); found {
				shown, group = prefix+head+out.Delimiter, true
			}
		}
		if !strings.HasPrefix(f.Name, prefix) || f.Name <= after || group && (shown == last || strings.HasPrefix(after, shown)) {
			continue
		}
		if out.KeyCount == out.MaxKeys {
			out.IsTruncated, out.NextContinuationToken = true, base64.RawURLEncoding.EncodeToString([]byte(last))
			break
		}
		out.KeyCount++
		last = shown
		if group {
			out.CommonPrefixes = append(out.CommonPrefixes, listPrefix{escape(shown)})
		} else {
			out.Contents = append(out.Contents, listObject{Key: escape(f.Name), LastModified: "1970-01-01T00:00:00.000Z", ETag: g.etag(i), Size: f.Size, StorageClass: "STANDARD"})
		}
	}
	out.Prefix = escape(prefix)
	w.Header().Set("Content-Type", "application/xml")
	xml.NewEncoder(w).Encode(out)
}
