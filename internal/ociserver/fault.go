// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package ociserver

import (
	"maps"
	"net/http"
	"time"
)

// Fault says how one reply departs from the right one. Its fields combine.
type Fault struct {
	// Status, unless 0, answers at once, with Header and Body.
	Status int
	Body   []byte

	// Header is set over what the server would send; an empty list removes.
	Header http.Header

	Drop        bool    // Breaks the connection before anything is read.
	IgnoreRange bool    // Serves the whole blob with 200.
	Flip        []int64 // Offsets in the body of bytes to invert.
	Cut         bool    // Breaks the connection after CutAfter bytes of the body.
	CutAfter    int64
	Extra       []byte        // Follows the body, whose length is not announced,
	Endless     bool          // again and again until the client goes.
	Delay       time.Duration // Before the head of the reply.
	Trickle     time.Duration // Before every byte of the body.
}

// Serve answers as next does, but for the fault.
func (f *Fault) Serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	if !sleep(r, f.Delay) {
		return
	}
	if f.Drop {
		panic(http.ErrAbortHandler)
	}
	out := &faultWriter{ResponseWriter: w, fault: f, request: r}
	if f.Status != 0 {
		out.WriteHeader(f.Status)
		out.Write(f.Body)
		return
	}
	if f.IgnoreRange {
		r.Header.Del("Range")
	}
	next.ServeHTTP(out, r)
	for again := len(f.Extra) > 0; again; {
		_, err := out.Write(f.Extra)
		again = f.Endless && err == nil
	}
	if f.Cut && out.written <= f.CutAfter {
		out.cut()
	}
}

func sleep(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-r.Context().Done():
		return false
	case <-timer.C:
		return true
	}
}

type faultWriter struct {
	http.ResponseWriter
	fault   *Fault
	request *http.Request
	headed  bool
	written int64
}

func (w *faultWriter) WriteHeader(status int) {
	w.headed = true
	maps.Copy(w.Header(), w.fault.Header)
	for name, values := range w.fault.Header {
		if len(values) == 0 {
			w.Header().Del(name)
		}
	}
	if len(w.fault.Extra) > 0 {
		w.Header().Del("Content-Length")
	}
	w.ResponseWriter.WriteHeader(status)
	if f, ok := w.ResponseWriter.(http.Flusher); ok && len(w.fault.Extra) > 0 {
		// Or else net/http would count the body and announce its length.
		f.Flush()
	}
}

func (w *faultWriter) Write(p []byte) (int, error) {
	if !w.headed {
		w.WriteHeader(http.StatusOK)
	}
	out := append([]byte(nil), p...)
	for _, at := range w.fault.Flip {
		if i := at - w.written; i >= 0 && i < int64(len(out)) {
			out[i] ^= 0xff
		}
	}
	if w.fault.Cut && w.written+int64(len(out)) > w.fault.CutAfter {
		w.ResponseWriter.Write(out[:w.fault.CutAfter-w.written])
		w.cut()
	}
	w.written += int64(len(out))
	if w.fault.Trickle == 0 {
		return w.ResponseWriter.Write(out)
	}
	for i := range out {
		if !sleep(w.request, w.fault.Trickle) {
			return i, w.request.Context().Err()
		}
		if _, err := w.ResponseWriter.Write(out[i : i+1]); err != nil {
			return i, err
		}
		w.ResponseWriter.(http.Flusher).Flush()
	}
	return len(out), nil
}

// cut sends what was written and breaks the connection.
func (w *faultWriter) cut() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	panic(http.ErrAbortHandler)
}
