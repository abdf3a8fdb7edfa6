// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"oras.land/oras-go/v2"
	"oras.land/oras-go/v2/content/file"
	"oras.land/oras-go/v2/registry/remote"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/registry"
)

// published is a plain model at a registry of somebody else.
type published struct {
	dir    string // what was pushed
	name   string // host/path
	ref    string
	digest digest.Digest
}

// publish pushes a model in the plain profile, attested.
func publish(t *testing.T, s server) published {
	t.Helper()
	party, p := newParty(t), published{dir: smallModel(t), name: s.host + "/team/model"}
	p.ref = p.name + ":v1"
	d, err := party.client().Push(t.Context(), p.ref, os.DirFS(p.dir), party.options(t))
	if err != nil {
		t.Fatal(err)
	}
	p.digest = d.Digest
	return p
}

// tool runs a program, which must succeed.
func tool(t *testing.T, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Dir, cmd.Env = t.TempDir(), env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

func TestORASLibraryReadsPlainModelsByAnnotations(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			p := publish(t, s.start(t))
			dir := t.TempDir()
			store, err := file.New(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			source, err := remote.NewRepository(p.name)
			if err != nil {
				t.Fatal(err)
			}
			source.PlainHTTP = true
			d, err := oras.Copy(t.Context(), source, "v1", store, "v1", oras.DefaultCopyOptions)
			if err != nil || d.Digest != p.digest {
				t.Fatalf("Copy = %s, %v; want %s", d.Digest, err, p.digest)
			}
			sameTree(t, dir, p.dir)
		})
	}
}

func TestORASCommandReadsPlainModelsByAnnotations(t *testing.T) {
	p, dir := publish(t, dockerRegistry(t)), t.TempDir()
	tool(t, cleanEnv(t), "oras", "pull", "--plain-http", "--no-tty", p.ref, "--output", dir)
	sameTree(t, dir, p.dir)
}

func TestModctlReadsPlainModels(t *testing.T) {
	p := publish(t, dockerRegistry(t))
	for name, flags := range map[string][]string{"from the registry": {"--extract-from-remote"}, "through its storage": nil} {
		t.Run(name, func(t *testing.T) {
			dir, env := filepath.Join(t.TempDir(), "out"), cleanEnv(t)
			tool(t, env, "modctl", append([]string{"pull", "--plain-http", "--no-progress", "--storage-dir", t.TempDir(), "--log-dir", t.TempDir(),
				"--extract-dir", dir, p.ref}, flags...)...)
			// To modctl the index is a file like any other.
			sameTree(t, dir, p.dir, ".modelsec.index")
		})
	}
}

func TestSkopeoCopyKeepsDigest(t *testing.T) {
	p := publish(t, dockerRegistry(t))
	layout := filepath.Join(t.TempDir(), "layout")
	tool(t, cleanEnv(t), "skopeo", "--insecure-policy", "copy", "--src-tls-verify=false", "docker://"+p.ref, "oci:"+layout+":v1")
	store, err := (&registry.Client{Credentials: anonymous}).Open(t.Context(), "oci:"+layout)
	if err != nil {
		t.Fatal(err)
	}
	if d, err := store.Resolve(t.Context(), "v1"); err != nil || d.Digest != p.digest {
		t.Errorf("the copy is %s, %v; want %s", d.Digest, err, p.digest)
	}
}

func TestConfigIsValidModelPack(t *testing.T) {
	path := filepath.Join(folder(t, "MODELSEC_VECTORS", "modelpack"), "config-schema.json")
	schema, err := jsonschema.NewCompiler().Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := newParty(t)
	for profile, to := range map[string][]encrypt.Recipient{"plain": nil, "encrypted": {p.identity.Recipient()}} {
		layout, options := "oci:"+filepath.Join(t.TempDir(), "layout"), p.options(t, to...)
		options.Name = "team/model"
		d, err := p.client().Push(t.Context(), layout+":v1", os.DirFS(smallModel(t)), options)
		if err != nil {
			t.Fatal(err)
		}
		store, err := new(registry.Client).Open(t.Context(), layout)
		if err != nil {
			t.Fatal(err)
		}
		var m ocispec.Manifest
		if err := json.Unmarshal(fetch(t, store, d), &m); err != nil {
			t.Fatal(err)
		}
		config, err := jsonschema.UnmarshalJSON(bytes.NewReader(fetch(t, store, m.Config)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(config); err != nil {
			t.Errorf("config of the %s profile: %v", profile, err)
		}
	}
}

// fetch reads a small blob or manifest.
func fetch(t *testing.T, s registry.Store, d ocispec.Descriptor) []byte {
	t.Helper()
	body, err := s.Fetch(t.Context(), d, 0, d.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	if err != nil || digest.FromBytes(b) != d.Digest {
		t.Fatalf("Fetch of %s: %v, or other bytes", d.Digest, err)
	}
	return b
}
