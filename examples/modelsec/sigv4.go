// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// credentials are those of one run of the gateway.
type credentials struct{ id, secret string }

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	sigTime      = "20060102T150405Z"
	sigSkew      = 15 * time.Minute // as at AWS
)

var errSignature = errors.New("the request is not signed with the credentials of this gateway")

// verify checks the AWS Signature Version 4 of a request without a body. All
// failures are one error.
func (c credentials) verify(r *http.Request, now time.Time) error {
	algorithm, fields, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	value := make(map[string]string)
	for f := range strings.SplitSeq(fields, ",") {
		name, v, _ := strings.Cut(strings.TrimSpace(f), "=")
		value[name] = v
	}
	scope := strings.Split(value["Credential"], "/")
	if algorithm != sigAlgorithm || len(scope) != 5 || scope[0] != c.id || scope[3] != "s3" || scope[4] != "aws4_request" {
		return errSignature
	}
	date := r.Header.Get("X-Amz-Date")
	at, err := time.Parse(sigTime, date)
	if err != nil || scope[1] != date[:8] || at.Before(now.Add(-sigSkew)) || at.After(now.Add(sigSkew)) {
		return errSignature
	}
	// Sorted, as at AWS, and none twice: what is hashed is no longer than the request.
	signed := strings.Split(value["SignedHeaders"], ";")
	if !slices.IsSorted(signed) || len(slices.Compact(slices.Clone(signed))) != len(signed) {
		return errSignature
	}
	for _, must := range []string{"host", "x-amz-date", "x-amz-content-sha256"} {
		if !slices.Contains(signed, must) {
			return errSignature
		}
	}
	return c.match(r, date, scope, signed, value["Signature"])
}

func (c credentials) match(r *http.Request, date string, scope, signed []string, signature string) error {
	sum := sha256.Sum256([]byte(canonical(r, signed)))
	text := strings.Join([]string{sigAlgorithm, date, strings.Join(scope[1:], "/"), hex.EncodeToString(sum[:])}, "\n")
	key := []byte("AWS4" + c.secret)
	for _, part := range scope[1:] {
		key = mac(key, part)
	}
	want := hex.EncodeToString(mac(key, text))
	if subtle.ConstantTimeCompare([]byte(want), []byte(signature)) != 1 {
		return errSignature
	}
	return nil
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// canonical is the request as it was signed: path and query as they were sent,
// the query sorted. They come from the URL that is served, not from the request
// line, in which AWS's own transport names the whole URL.
func canonical(r *http.Request, signed []string) string {
	path := r.URL.EscapedPath()
	var pairs []string
	if r.URL.RawQuery != "" {
		pairs = strings.Split(r.URL.RawQuery, "&")
	}
	for i, p := range pairs {
		if !strings.Contains(p, "=") {
			pairs[i] = p + "="
		}
	}
	slices.Sort(pairs)
	var headers strings.Builder
	for _, name := range signed {
		v := strings.Join(r.Header.Values(name), ",")
		if name == "host" {
			v = r.Host
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join([]string{r.Method, path, strings.Join(pairs, "&"), headers.String(), strings.Join(signed, ";"), r.Header.Get("X-Amz-Content-Sha256")}, "\n")
}

// escapeKey encodes a key as S3 does where a client asks for it.
func escapeKey(key string) string { return strings.ReplaceAll(url.QueryEscape(key), "%2F", "/") }
