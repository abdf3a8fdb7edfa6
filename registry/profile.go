// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"strings"
	"sync/atomic"
)

// UploadForm is a way of sending a blob to a registry.
type UploadForm int

const (
	// UploadByHost uses what is known about the host, and streams where
	// nothing is.
	UploadByHost UploadForm = iota

	// UploadStreamed sends the bytes before their digest: POST, one streaming
	// PATCH, PUT. It is the form of Create.
	UploadStreamed

	// UploadWhole sends one PUT of known digest and length. It is the form of
	// [Putter].
	UploadWhole
)

// knownHosts lists registries that take one form only, or one form only up to
// a size. What is not listed was seen to take a streaming PATCH. A wrong entry
// costs time, not correctness: [ErrUploadForm] leads to the other form.
var knownHosts = []struct {
	suffix string
	form   UploadForm
	whole  int64 // largest PUT; 0: any
}{
	// Every PATCH after the first is answered 201 and dropped
	// (aws/containers-roadmap#2831); Create sends one.
	{".amazonaws.com", UploadStreamed, 0},
	{"public.ecr.aws", UploadStreamed, 0},
	// A PATCH of announced length over 4 MiB is answered 416 (kitops,
	// ocx#237); one without is taken, and so is a PUT.
	{"ghcr.io", UploadStreamed, 0},
	// PATCH is refused (kitops#777).
	{".pkg.dev", UploadWhole, 0},
	{"gcr.io", UploadWhole, 0},
	{".gcr.io", UploadWhole, 0},
	// A PUT of more than 20 MB was answered 413 (harbor#23015).
	{".azurecr.io", UploadStreamed, 20_000_000},
	{"docker.io", UploadStreamed, 0},
	// The hosted one refuses a PUT of more than 20 GB (oras-py#137).
	{"quay.io", UploadStreamed, 20_000_000_000},
}

// profile is what is known about uploads to one host.
type profile struct {
	form  atomic.Int32 // an UploadForm other than UploadByHost
	whole int64        // largest PUT; 0: any
}

func profileOf(host string, override UploadForm) *profile {
	p := new(profile)
	form := UploadStreamed
	name, _, _ := cutPort(host)
	for _, k := range knownHosts {
		if name == k.suffix || strings.HasPrefix(k.suffix, ".") && strings.HasSuffix(name, k.suffix) {
			form, p.whole = k.form, k.whole
			break
		}
	}
	if override != UploadByHost {
		form, p.whole = override, 0
	}
	p.form.Store(int32(form))
	return p
}

// takesWhole reports whether a PUT of size bytes may succeed.
func (p *profile) takesWhole(size int64) bool { return p.whole == 0 || size <= p.whole }

// refused notes that a form did not work, so that the next blob begins with
// the other.
func (p *profile) refused(form UploadForm) {
	switch form {
	case UploadStreamed:
		p.form.CompareAndSwap(int32(UploadStreamed), int32(UploadWhole))
	case UploadWhole:
		p.form.CompareAndSwap(int32(UploadWhole), int32(UploadStreamed))
	}
}
