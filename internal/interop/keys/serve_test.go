// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keys_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/hashicorp/vault/sdk/logical"
)

// serveVault runs Vault with the keys release and another for a process that
// tells it, line by line, which state to be in. It answers each line with one of
// its own: at first its address and token, then the number of requests so far.
func serveVault(in io.Reader, out io.Writer) error {
	ctx := context.Background()
	v, err := startVault(ctx)
	if err != nil {
		return err
	}
	defer v.stop()
	for _, name := range []string{"release", "another"} {
		create := map[string]any{"type": "aes256-gcm96", "exportable": true, "allow_plaintext_backup": true}
		if _, err := v.operate(ctx, logical.UpdateOperation, "transit", "keys/"+name, create); err != nil {
			return err
		}
		if _, err := v.operate(ctx, logical.UpdateOperation, "transit", "keys/"+name+"/config", map[string]any{"deletion_allowed": true}); err != nil {
			return err
		}
	}
	if _, err := fmt.Fprintln(out, v.URL, rootToken); err != nil {
		return err
	}
	refusing := func(status int, text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { refuse(w, status, text) }
	}
	faults := map[string]http.HandlerFunc{
		"deny":     refusing(http.StatusForbidden, "permission denied"),
		"throttle": refusing(http.StatusTooManyRequests, "rate limit quota exceeded"),
		"fail":     refusing(http.StatusServiceUnavailable, "Vault is sealed"),
		"stall":    v.stall,
		"quote": func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			refuse(w, http.StatusBadRequest, r.Header.Get("X-Vault-Token")+string(body))
		},
	}
	var backup any
	for lines := bufio.NewScanner(in); lines.Scan(); {
		switch state := lines.Text(); {
		case faults[state] != nil:
			v.enter(faults[state])(nil)
		case state == "disable":
			kept, err := v.operate(ctx, logical.ReadOperation, "transit", "backup/release", nil)
			if err != nil {
				return err
			}
			backup = kept.Data["backup"]
			if _, err := v.operate(ctx, logical.DeleteOperation, "transit", "keys/release", nil); err != nil {
				return err
			}
		case state == "heal":
			if backup != nil {
				if _, err := v.operate(ctx, logical.UpdateOperation, "transit", "restore/release", map[string]any{"backup": backup}); err != nil {
					return err
				}
				backup = nil
			}
			v.healNow()
		case state != "count":
			return fmt.Errorf("state %q", state)
		}
		if _, err := fmt.Fprintln(out, v.count()); err != nil {
			return err
		}
	}
	return nil
}
