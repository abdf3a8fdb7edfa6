// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

// How many processes are killed, half of them in each profile.
const (
	pullKills = 50 / 2
	pushKills = 24 / 2
)

// The process that pushes is this test binary, as is the one that pulls.
const (
	envPush    = "MODELSEC_TEST_PUSH"    // the reference
	envSource  = "MODELSEC_TEST_SOURCE"  // the directory
	envJournal = "MODELSEC_TEST_JOURNAL" // the file
	envProfile = "MODELSEC_TEST_PROFILE"
)

// pushedPart is the layer size of pushes that are killed: what a journal saves
// is whole layers.
const pushedPart = 4 << 20

func pushAsChild() error {
	keys := os.Getenv(envKeys)
	text, err := os.ReadFile(filepath.Join(keys, "signer"))
	if err != nil {
		return err
	}
	key, err := provenance.ParsePrivateKey(text)
	if err != nil {
		return err
	}
	signer, err := provenance.KeySigner(key)
	if err != nil {
		return err
	}
	text, err = os.ReadFile(filepath.Join(keys, "identity"))
	if err != nil {
		return err
	}
	id, err := encrypt.ParseIdentity(string(text))
	if err != nil {
		return err
	}
	o := &modelsec.PushOptions{Signer: signer, Journal: os.Getenv(envJournal), LayerSize: pushedPart}
	if os.Getenv(envProfile) == "encrypted" {
		o.Recipients = []encrypt.Recipient{id.Recipient()}
	}
	c := &modelsec.Client{Registry: remote(), Identities: []encrypt.Identity{id}}
	_, err = c.Push(context.Background(), os.Getenv(envPush), os.DirFS(os.Getenv(envSource)), o)
	return err
}

// keyFiles writes the keys of p for a child, and returns their directory.
func (p *party) keyFiles(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	policy := must(p.policy().MarshalJSON())
	signer := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(p.key))})
	for name, content := range map[string][]byte{"identity": []byte(p.identity.PEM()), "policy": policy, "signer": signer} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// life runs a child over a line, kills it when so many bytes have crossed, and
// reports whether it was done before.
func life(t *testing.T, l *line, bytesToLive int64, env ...string) (done bool) {
	t.Helper()
	child := exec.Command(must(os.Executable()))
	var out bytes.Buffer
	child.Stderr = &out
	child.Env = append(os.Environ(), env...)
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	l.live(child.Process, bytesToLive)
	err := child.Wait()
	l.spare()
	if err != nil && (out.Len() > 0 || child.ProcessState.Exited()) {
		t.Fatalf("the child was not killed and ended with %v: %s", err, &out)
	}
	return err == nil
}

// lives runs one child after the other, each killed at a random moment, until
// one is done, and returns how many were killed. When most were, none is.
func lives(t *testing.T, l *line, moment func() int64, most int, env ...string) (killed int) {
	t.Helper()
	for {
		bytesToLive := moment()
		if killed == most {
			bytesToLive = 1 << 62
		}
		if life(t, l, bytesToLive, env...) {
			return killed
		}
		killed++
	}
}

// moments are when processes are killed, in bytes that crossed the line, before
// so many: the same in every run.
func moments(before int64) func() int64 {
	r := rand.New(rand.NewPCG(5, 47))
	return func() int64 { return r.Int64N(before) }
}

// TestPullKilledAtRandomMomentsIsWholeAndThrifty kills fifty processes with
// SIGKILL. Each is followed by one that goes on; what they have pulled in the
// end is the model, and together they fetched little twice.
func TestPullKilledAtRandomMomentsIsWholeAndThrifty(t *testing.T) {
	b := newBulk(t)
	keys := b.p.keyFiles(t)
	for _, profile := range []string{"plain", "encrypted"} {
		t.Run(profile, func(t *testing.T) {
			b.push(t, profile)
			next := moments(b.size / 2)
			for killed := 0; killed < pullKills; {
				dir, l := filepath.Join(t.TempDir(), "model"), &line{}
				ref := over(t, l, b.server) + "/team/" + profile + ":v3"
				killed += lives(t, l, next, pullKills-killed, envPull+"="+ref, envDest+"="+dir, envKeys+"="+keys)
				b.identical(t, dir)
				thrifty(t, b.size, l)
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// TestPushKilledAtRandomMomentsIsWholeAndThrifty does the same to pushes that
// keep a journal: no layer that was recorded is sent again.
func TestPushKilledAtRandomMomentsIsWholeAndThrifty(t *testing.T) {
	b := newBulk(t)
	keys := b.p.keyFiles(t)
	for _, profile := range []string{"plain", "encrypted"} {
		t.Run(profile, func(t *testing.T) {
			next := moments(b.size / 4)
			for killed := 0; killed < pushKills; {
				journal, l := filepath.Join(t.TempDir(), "journal"), &line{}
				host, name := over(t, l, b.server), fmt.Sprintf("%s-%d", profile, killed)
				n := lives(t, l, next, pushKills-killed, envPush+"="+host+"/team/"+name+":v3", envSource+"="+b.source,
					envJournal+"="+journal, envProfile+"="+profile, envKeys+"="+keys)
				killed += n
				if _, err := os.Stat(journal); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the journal after the push was complete: %v", err)
				}
				// Four layers are under way at a time, and any of them may be stored
				// and not recorded.
				most := b.size + b.size/20 + int64(n)*4*pushedPart
				l.mu.Lock()
				received := l.received
				l.mu.Unlock()
				t.Logf("%d kills: %d bytes were received of an artifact of %d, want at most %d", n, received, b.size, most)
				if received > most {
					t.Error("more was sent again than the layers under way")
				}
				b.pull(t, remote(), host, name)
			}
		})
	}
}
