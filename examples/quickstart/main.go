// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Quickstart publishes a small model to a registry that it brings along, and
// gets it back: encrypted, attested, verified. In between it plays the
// attacker who owns the registry, and shows what that gets him.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/provenance"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	work, err := os.MkdirTemp("", "modelsec-quickstart-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	registry, err := startRegistry()
	if err != nil {
		return err
	}
	defer registry.close()
	ref := registry.host + "/team/tiny-llama:v1"
	model := filepath.Join(work, "model")
	size, err := writeModel(model)
	if err != nil {
		return err
	}
	fmt.Printf("A model of %s, a registry on %s, and five steps.\n\n", mib(size), registry.host)
	s := &story{size: size}

	// 1. Keys: one signs what the team releases, the other opens its weights.
	var signer provenance.Signer
	var policy provenance.Policy
	var identity *encrypt.HPKEIdentity
	err = s.step("Make a signing key and a decryption key", func() (string, error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return "", err
		}
		if signer, err = provenance.KeySigner(key); err != nil {
			return "", err
		}
		policy = provenance.RequireKey(key.Public(), provenance.PredicateRelease, provenance.PredicateSLSA)
		identity, err = encrypt.GenerateIdentity(encrypt.DefaultType)
		return "ECDSA P-256 to sign, ML-KEM-768 + X25519 to decrypt", err
	})
	if err != nil {
		return err
	}
	client := &modelsec.Client{Identities: []encrypt.Identity{identity}}

	// 2. Push: encrypted, with provenance, signed.
	err = s.step("Push it, encrypted and attested", func() (string, error) {
		slsa, err := provenance.NewProvenance(provenance.Build{
			Builder:    "https://modelsec.github.io/builders/local/v1",
			Parameters: provenance.Convert{To: "safetensors"},
			Started:    time.Now(),
		})
		if err != nil {
			return "", err
		}
		d, err := client.Push(ctx, ref, os.DirFS(model), &modelsec.PushOptions{
			Signer:     signer,
			Statements: []provenance.Statement{slsa},
			Recipients: []encrypt.Recipient{identity.Recipient()},
		})
		return string(d.Digest), err
	})
	if err != nil {
		return err
	}

	// 3. Verify: who signed it, for which name and tag?
	err = s.step("Verify who made it", func() (string, error) {
		report, err := client.Verify(ctx, ref, policy)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("%d clauses of the policy hold", len(report.Clauses)), nil
	})
	if err != nil {
		return err
	}

	// 4. The registry lies: one flipped bit in one layer.
	pulled := filepath.Join(work, "pulled")
	err = s.step("Flip one bit at the registry and pull", func() (string, error) {
		registry.tamper.Store(true)
		defer registry.tamper.Store(false)
		_, err := client.Pull(ctx, ref, pulled, policy, nil)
		var refused *modelsec.Error
		if !errors.Is(err, modelsec.ErrDigest) || !errors.As(err, &refused) {
			return "", fmt.Errorf("a tampered model was not refused: %v", err)
		}
		if _, err := os.Lstat(pulled); !errors.Is(err, os.ErrNotExist) {
			return "", errors.New("a tampered model left files behind")
		}
		return fmt.Sprintf("refused: %s, segment %d; nothing was written", refused.File, refused.Segment), nil
	})
	if err != nil {
		return err
	}

	// 5. The registry behaves again.
	err = s.step("Pull it: verified, decrypted, byte for byte", func() (string, error) {
		if _, err := client.Pull(ctx, ref, pulled, policy, nil); err != nil {
			return "", err
		}
		return "identical to the source", compare(model, pulled)
	})
	if err != nil {
		return err
	}
	s.end()
	return nil
}

// registry is an OCI registry on a loopback port that can be told to lie.
type registry struct {
	host   string
	tamper atomic.Bool
	server *http.Server
}

func startRegistry() (*registry, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registry{host: listener.Addr().String()}
	handler := ociserver.New()
	handler.Fault = func(req *http.Request) *ociserver.Fault {
		if req.Method == http.MethodGet && r.tamper.Load() && isBlob(req) {
			return &ociserver.Fault{Flip: []int64{1 << 20}}
		}
		return nil
	}
	r.server = &http.Server{Handler: handler}
	go r.server.Serve(listener)
	return r, nil
}

func (r *registry) close() { r.server.Close() }
