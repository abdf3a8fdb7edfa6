// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskmstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"strings"
)

// authenticate checks a request's Signature Version 4, as the AWS reference
// describes it, from the canonical request up.
func (s *Server) authenticate(r *http.Request, body []byte) error {
	fields, ok := strings.CutPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ")
	if !ok {
		return errors.New("no signature of version 4")
	}
	parameters := make(map[string]string)
	for _, f := range strings.Split(fields, ", ") {
		name, value, _ := strings.Cut(f, "=")
		parameters[name] = value
	}
	accessKey, scope, _ := strings.Cut(parameters["Credential"], "/")
	parts := strings.Split(scope, "/")
	if accessKey != s.AccessKeyID || len(parts) != 4 || parts[2] != "kms" || parts[3] != "aws4_request" {
		return fmt.Errorf("credential %q is not known for this service", parameters["Credential"])
	}
	var headers strings.Builder
	for _, name := range strings.Split(parameters["SignedHeaders"], ";") {
		value := strings.Join(r.Header[textproto.CanonicalMIMEHeaderKey(name)], ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = fmt.Sprint(r.ContentLength)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.TrimSpace(value))
	}
	request := strings.Join([]string{r.Method, r.URL.EscapedPath(), r.URL.RawQuery, headers.String(), parameters["SignedHeaders"], hash(body)}, "\n")
	text := strings.Join([]string{"AWS4-HMAC-SHA256", r.Header.Get("X-Amz-Date"), scope, hash([]byte(request))}, "\n")
	key := []byte("AWS4" + s.SecretAccessKey)
	for _, part := range append(parts, text) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(parameters["Signature"])) {
		return errors.New("the request signature we calculated does not match the signature you provided")
	}
	return nil
}

func hash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
