// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"errors"
	"io"
	"net/http"
	"testing"

	"github.com/hashicorp/vault/sdk/logical"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
	"github.com/modelsec/modelsec-go/encrypt/vault"
)

// createKey makes a key that can be taken away and put back.
func createKey(t *testing.T, v *vaultServer, name, keyType string) {
	t.Helper()
	v.do(t, logical.UpdateOperation, "transit", "keys/"+name, map[string]any{"type": keyType, "exportable": true, "allow_plaintext_backup": true})
	v.do(t, logical.UpdateOperation, "transit", "keys/"+name+"/config", map[string]any{"deletion_allowed": true})
}

func openVault(t *testing.T, v *vaultServer, name string, auth vault.Auth) *vault.Key {
	t.Helper()
	k, err := vault.New(vault.Config{Address: v.URL, Key: name, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func byToken() vault.Auth {
	return vault.Auth{Method: vault.Token, Secret: vault.Secret(rootToken)}
}

// byAppRole makes a role and returns the way to log in with it.
func byAppRole(t *testing.T, v *vaultServer) vault.Auth {
	t.Helper()
	v.do(t, logical.CreateOperation, "approle", "role/puller", map[string]any{"token_ttl": "1h", "policies": "puller"})
	role := v.do(t, logical.ReadOperation, "approle", "role/puller/role-id", nil).Data["role_id"].(string)
	secret := v.do(t, logical.UpdateOperation, "approle", "role/puller/secret-id", map[string]any{}).Data["secret_id"].(string)
	return vault.Auth{Method: vault.AppRole, Role: role, Secret: vault.Secret(secret)}
}

// TestTransitContract is the suite against the engine itself: keys are deleted
// and restored, tokens and secret ids are checked by Vault's code.
func TestTransitContract(t *testing.T) {
	for _, keyType := range []string{"aes256-gcm96", "aes128-gcm96", "chacha20-poly1305"} {
		t.Run(keyType, func(t *testing.T) {
			encrypttest.Run(t, func(t *testing.T) encrypttest.Pair {
				v := newVault(t)
				createKey(t, v, "ours", keyType)
				createKey(t, v, "theirs", keyType)
				auth := byAppRole(t, v)
				secret, err := auth.Secret()
				if err != nil {
					t.Fatal(err)
				}
				k := openVault(t, v, "ours", auth)
				var backup any
				return encrypttest.Pair{
					Recipient: k, Identity: k, Stranger: openVault(t, v, "theirs", byToken()),
					Secrets:  [][]byte{[]byte(secret), []byte(rootToken)},
					Requests: v.count,
					Binds:    true,
					Service: encrypttest.Service{
						Disable: func(t *testing.T) {
							backup = v.do(t, logical.ReadOperation, "transit", "backup/ours", nil).Data["backup"]
							v.do(t, logical.DeleteOperation, "transit", "keys/ours", nil)
						},
						Deny: v.enter(func(w http.ResponseWriter, _ *http.Request) { refuse(w, http.StatusForbidden, "permission denied") }),
						Throttle: v.enter(func(w http.ResponseWriter, _ *http.Request) {
							refuse(w, http.StatusTooManyRequests, "rate limit quota exceeded")
						}),
						Fail: v.enter(func(w http.ResponseWriter, _ *http.Request) {
							refuse(w, http.StatusServiceUnavailable, "Vault is sealed")
						}),
						Quote: v.enter(func(w http.ResponseWriter, r *http.Request) {
							body, _ := io.ReadAll(r.Body)
							refuse(w, http.StatusBadRequest, r.Header.Get("X-Vault-Token")+string(body))
						}),
						Stall: v.enter(v.stall),
						Heal: func(t *testing.T) {
							if backup != nil {
								v.do(t, logical.UpdateOperation, "transit", "restore/ours", map[string]any{"backup": backup})
								backup = nil
							}
							v.heal(t)
						},
					},
				}
			})
		})
	}
}

// TestTransitRotation: a grant outlives the rotation of the key until the engine
// refuses its version; then it is that stanza which fails, not the key.
func TestTransitRotation(t *testing.T) {
	v := newVault(t)
	createKey(t, v, "ours", "aes256-gcm96")
	k := openVault(t, v, "ours", byToken())
	key, b := encrypttest.NewBinding(t)
	before, err := encrypt.WrapKey(t.Context(), key, b, k)
	if err != nil {
		t.Fatal(err)
	}
	v.do(t, logical.UpdateOperation, "transit", "keys/ours/rotate", nil)
	after, err := encrypt.WrapKey(t.Context(), key, b, k)
	if err != nil {
		t.Fatal(err)
	}
	open := func(entries ...encrypt.Stanza) error {
		got, err := encrypt.UnwrapKey(t.Context(), entries, b, encrypttest.Now, k)
		if err == nil {
			got.Close()
		}
		return err
	}
	if err := open(before...); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
	v.do(t, logical.UpdateOperation, "transit", "keys/ours/config", map[string]any{"min_decryption_version": 2})
	if err := open(before...); !errors.Is(err, encrypt.ErrDecrypt) || errors.Is(err, encrypt.ErrDisabled) {
		t.Errorf("version 1 is refused: error %v, want ErrDecrypt", err)
	}
	if err := open(append(before, after...)...); err != nil {
		t.Errorf("with a newer stanza of the same key: %v", err)
	}
}

// TestTransitRefusesKeysWithoutAssociatedData: an RSA key would wrap without
// binding, and not withstand a quantum computer.
func TestTransitRefusesKeysWithoutAssociatedData(t *testing.T) {
	v := newVault(t)
	createKey(t, v, "rsa", "rsa-2048")
	_, b := encrypttest.NewBinding(t)
	_, err := openVault(t, v, "rsa", byToken()).Wrap(t.Context(), make([]byte, 128), b)
	if err == nil || errors.Is(err, encrypt.ErrDecrypt) {
		t.Errorf("error %v", err)
	}
}

// TestAppRoleRefuses: a secret id that the engine does not know is a denial.
func TestAppRoleRefuses(t *testing.T) {
	v := newVault(t)
	createKey(t, v, "ours", "aes256-gcm96")
	auth := byAppRole(t, v)
	auth.Secret = vault.Secret("another")
	_, b := encrypttest.NewBinding(t)
	if _, err := openVault(t, v, "ours", auth).Wrap(t.Context(), make([]byte, 128), b); !errors.Is(err, encrypt.ErrDenied) {
		t.Errorf("error %v, want ErrDenied", err)
	}
}
