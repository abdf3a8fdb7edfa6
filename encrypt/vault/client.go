// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package vault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
)

// maxAnswer is far above what any request of this package is answered with.
const maxAnswer = 64 << 10

// client sends requests and keeps the token they need.
type client struct {
	base      string
	namespace string
	auth      Auth
	http      *http.Client
	lock      chan struct{} // holds one while token is used; a wait ends with its context
	token     token
}

// call posts in and decodes the answer into out. A refused token is replaced
// once, unless it is as new as this call.
func (c *client) call(ctx context.Context, path string, in, out any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t, fresh, err := c.current(ctx, "")
	if err != nil {
		return err
	}
	err = c.post(ctx, path, t, in, out)
	if !errors.Is(err, encrypt.ErrDenied) || fresh {
		return err
	}
	again, _, loginErr := c.current(ctx, t)
	if loginErr != nil {
		return loginErr
	}
	if again == t {
		return err // there is no other token to be had
	}
	return c.post(ctx, path, again, in, out)
}

// post makes one request.
func (c *client) post(ctx context.Context, path, token string, in, out any) error {
	doc, err := json.Marshal(in)
	if err != nil {
		panic("vault: strings and bytes do not encode: " + err.Error())
	}
	b := &body{bytes: doc}
	defer b.wipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+"/v1/"+path, nil)
	if err != nil {
		return err
	}
	req.ContentLength, req.GetBody = int64(len(doc)), b.open
	req.Body, _ = b.open()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vault-Request", "true") // agents can be told to demand it
	if c.namespace != "" {
		req.Header.Set("X-Vault-Namespace", c.namespace)
	}
	if token != "" {
		req.Header.Set("X-Vault-Token", token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return connectionError(ctx, err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	defer clear(answer)
	if err != nil {
		return connectionError(ctx, err)
	}
	if len(answer) > maxAnswer {
		return fmt.Errorf("the server answers with more than %d bytes", maxAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return statusError(resp.StatusCode, answer)
	}
	if json.Unmarshal(answer, out) != nil {
		return fmt.Errorf("the server answers with %d bytes that are not what was asked for", len(answer))
	}
	return nil
}

// connectionError keeps the text of a network error, which is about addresses
// and certificates, and not that of the request.
func connectionError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %w", encrypt.ErrUnavailable, err)
}

// statusError says what an answer means. Vault says much with the status 400
// and a text, of which the parts that are known here are looked for.
func statusError(status int, answer []byte) error {
	var said struct {
		Errors []string `json:"errors"`
	}
	json.Unmarshal(answer, &said) // a proxy may have answered; then the status has to do
	text := strings.ToLower(strings.Join(said.Errors, "\n"))
	because := func(err error, why string) error { return fmt.Errorf("status %d: %w: %s", status, err, why) }
	switch {
	case status == http.StatusBadRequest && strings.Contains(text, "encryption key not found"):
		return because(encrypt.ErrDisabled, "there is no such key")
	case status != http.StatusForbidden && strings.Contains(text, "soft") && strings.Contains(text, "delete"):
		return because(encrypt.ErrDisabled, "the key was deleted") // OpenBao
	case status == http.StatusBadRequest && strings.Contains(text, "non-aead"):
		return because(errors.New("unusable key"), "its type takes no associated data; want aes256-gcm96")
	case status == http.StatusBadRequest && strings.Contains(text, "too old"):
		// About this ciphertext: newer grants of the same key still open.
		return because(encrypt.ErrDecrypt, "the version of the key that wrapped it is no longer taken")
	case status == http.StatusBadRequest:
		return fmt.Errorf("status %d: %w", status, encrypt.ErrDecrypt)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return fmt.Errorf("status %d: %w", status, encrypt.ErrDenied)
	case status == http.StatusNotFound:
		return because(encrypt.ErrDisabled, "nothing is mounted there")
	case status == http.StatusTooManyRequests:
		return fmt.Errorf("status %d: %w", status, encrypt.ErrThrottled)
	case status >= 300 && status < 400:
		return fmt.Errorf("status %d: the server sends to another address, which is not followed", status)
	case status == http.StatusPreconditionFailed || status >= 472 && status <= 473 || status >= 500:
		// 412 is a node that lags behind, 472 and 473 are standby nodes.
		return fmt.Errorf("status %d: %w", status, encrypt.ErrUnavailable)
	}
	return fmt.Errorf("status %d", status)
}

// token is what authenticates requests.
type token struct {
	value     string
	renewable bool
	since     time.Time
	lifetime  time.Duration // 0: until refused
}

// spent reports whether so little of the lifetime is left that the next request
// might come too late.
func (t token) spent(now time.Time) bool {
	return t.lifetime > 0 && now.Sub(t.since) > t.lifetime*2/3
}

// current returns a token other than refused. fresh says that it was obtained
// just now.
func (c *client) current(ctx context.Context, refused string) (value string, fresh bool, err error) {
	select {
	case c.lock <- struct{}{}:
		defer func() { <-c.lock }()
	case <-ctx.Done():
		return "", false, ctx.Err()
	}
	if c.token.value != "" && c.token.value != refused {
		if !c.token.spent(time.Now()) {
			return c.token.value, false, nil
		}
		if c.token.renewable {
			if t, err := c.renew(ctx); err == nil {
				c.token = t
				return t.value, false, nil
			} else if ctx.Err() != nil || errors.Is(err, encrypt.ErrThrottled) {
				return "", false, fmt.Errorf("renew the token: %w", err)
			}
			// Vault has many words for a token that it does not renew, 500 among
			// them; the answer to a login says what is the matter.
		}
	}
	t, err := c.login(ctx)
	if err != nil {
		return "", false, fmt.Errorf("log in by %s: %w", c.auth.Method, err)
	}
	c.token = t
	return t.value, true, nil
}
