// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/transit"
	"github.com/hashicorp/vault/sdk/logical"
)

// vaultServer is Vault as far as keys are concerned: its own engines, storage in
// memory, and the part of its core that is not in them: tokens, by which a
// request may or may not pass, and the shape of requests and answers. Statuses
// are computed by Vault's own function.
type vaultServer struct {
	*httptest.Server
	transit, approle logical.Backend
	storage          map[string]logical.Storage

	mu       sync.Mutex
	tokens   map[string]bool
	fault    http.HandlerFunc
	healed   chan struct{}
	requests int
}

const rootToken = "hvs.root-of-the-test"

func newVault(t *testing.T) *vaultServer {
	t.Helper()
	v, err := startVault(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(v.stop)
	return v
}

func startVault(ctx context.Context) (*vaultServer, error) {
	v := &vaultServer{
		storage: map[string]logical.Storage{"transit": &logical.InmemStorage{}, "approle": &logical.InmemStorage{}},
		tokens:  map[string]bool{rootToken: true},
		healed:  make(chan struct{}),
	}
	mount := func(name string, factory logical.Factory) (logical.Backend, error) {
		b, err := factory(ctx, &logical.BackendConfig{
			StorageView: v.storage[name],
			System:      &logical.StaticSystemView{DefaultLeaseTTLVal: time.Hour, MaxLeaseTTLVal: time.Hour},
			BackendUUID: name,
		})
		if err != nil {
			return nil, err
		}
		return b, b.Initialize(ctx, &logical.InitializationRequest{Storage: v.storage[name]})
	}
	var err error
	if v.transit, err = mount("transit", transit.Factory); err != nil {
		return nil, err
	}
	if v.approle, err = mount("approle", approle.Factory); err != nil {
		return nil, err
	}
	v.Server = httptest.NewServer(v)
	return v, nil
}

func (v *vaultServer) stop() {
	v.healNow()
	v.Close()
	v.transit.Cleanup(context.Background())
	v.approle.Cleanup(context.Background())
}

// do makes a request of an operator, past HTTP.
func (v *vaultServer) do(t *testing.T, op logical.Operation, engine, path string, data map[string]any) *logical.Response {
	t.Helper()
	resp, err := v.operate(t.Context(), op, engine, path, data)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (v *vaultServer) operate(ctx context.Context, op logical.Operation, engine, path string, data map[string]any) (*logical.Response, error) {
	b := v.transit
	if engine == "approle" {
		b = v.approle
	}
	resp, err := b.HandleRequest(ctx, &logical.Request{Operation: op, Path: path, Data: data, Storage: v.storage[engine]})
	if err == nil && resp != nil {
		err = resp.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s/%s: %w", op, engine, path, err)
	}
	return resp, nil
}

func (v *vaultServer) count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.requests
}

func (v *vaultServer) enter(fault http.HandlerFunc) func(*testing.T) {
	return func(*testing.T) {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.fault = fault
	}
}

func (v *vaultServer) heal(*testing.T) { v.healNow() }

func (v *vaultServer) healNow() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fault = nil
	close(v.healed)
	v.healed = make(chan struct{})
}

// stall holds a request until all is well.
func (v *vaultServer) stall(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	healed := v.healed
	v.mu.Unlock()
	select {
	case <-healed:
	case <-r.Context().Done():
	}
}

// setToken lets requests with a token pass or not.
func (v *vaultServer) setToken(token string, valid bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tokens[token] = valid
}

func refuse(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{"errors": []string{text}})
}

func (v *vaultServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v.mu.Lock()
	v.requests++
	fault, valid := v.fault, v.tokens[r.Header.Get("X-Vault-Token")]
	v.mu.Unlock()
	if fault != nil {
		fault(w, r)
		return
	}
	engine, path, b := "transit", "", v.transit
	if p, ok := strings.CutPrefix(r.URL.Path, "/v1/auth/approle/"); ok {
		engine, path, b = "approle", p, v.approle
	} else if path, ok = strings.CutPrefix(r.URL.Path, "/v1/transit/"); !ok {
		refuse(w, http.StatusNotFound, "no handler for route")
		return
	}
	if engine != "approle" && !valid {
		refuse(w, http.StatusForbidden, "permission denied")
		return
	}
	var data map[string]any
	if err := json.NewDecoder(r.Body).Decode(&data); err != nil || r.Method != http.MethodPost {
		refuse(w, http.StatusBadRequest, "no request")
		return
	}
	req := &logical.Request{
		Operation: logical.UpdateOperation, Path: path, Data: data, Storage: v.storage[engine],
		Connection: &logical.Connection{RemoteAddr: "127.0.0.1"},
	}
	resp, err := b.HandleRequest(r.Context(), req)
	if status, failed := logical.RespondErrorCommon(req, resp, err); status != 0 || failed != nil {
		text := "internal error"
		if failed != nil {
			text = failed.Error()
		}
		refuse(w, status, text)
		return
	}
	answer := map[string]any{"data": resp.Data}
	if resp.Auth != nil {
		token := "hvs." + rand.Text()
		v.setToken(token, true)
		answer["auth"] = map[string]any{"client_token": token, "lease_duration": int(resp.Auth.TTL.Seconds()), "renewable": resp.Auth.Renewable}
	}
	json.NewEncoder(w).Encode(answer)
}
