// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package awskms

import (
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
)

const scheme = "awskms"

// keyARN is the name of a key.
type keyARN struct{ partition, region, account, id string }

var arnPattern = regexp.MustCompile(`^arn:(aws(?:-[a-z]+)*):kms:([a-z]{2,}(?:-[a-z]+)+-[0-9]{1,2}):([0-9]{12}):key/((?:mrk-[0-9a-f]{32})|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$`)

// String returns the ARN.
func (a keyARN) String() string {
	return fmt.Sprintf("arn:%s:kms:%s:%s:key/%s", a.partition, a.region, a.account, a.id)
}

// name is what key ids are made from. The replicas of a multi-Region key open
// each other's ciphertexts, so its name leaves the Region out.
func (a keyARN) name() string {
	if strings.HasPrefix(a.id, "mrk-") {
		a.region = ""
	}
	return a.String()
}

func parseARN(s string) (keyARN, error) {
	m := arnPattern.FindStringSubmatch(s)
	if m == nil {
		hint := ""
		if strings.Contains(s, "alias/") {
			hint = ": an alias may be moved to another key; aws kms describe-key prints the ARN behind it"
		}
		return keyARN{}, fmt.Errorf("awskms: %.200q is not the ARN of a key, as in arn:aws:kms:REGION:ACCOUNT:key/ID%s", s, hint)
	}
	return keyARN{m[1], m[2], m[3], m[4]}, nil
}

// parseURI takes what New documents.
func parseURI(uri string) (a keyARN, endpoint string, err error) {
	rest, ok := strings.CutPrefix(uri, scheme+":///")
	if !ok {
		return a, "", fmt.Errorf("awskms: %.200q does not begin with %s:///", uri, scheme)
	}
	name, query, asked := strings.Cut(rest, "?")
	if a, err = parseARN(name); err != nil || !asked {
		return a, "", err
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return a, "", fmt.Errorf("awskms: %.200q: %w", uri, err)
	}
	for name, v := range values {
		if name != "endpoint" || len(v) != 1 {
			return a, "", fmt.Errorf("awskms: parameter %.50q: known is endpoint, once", name)
		}
		endpoint = v[0]
	}
	return a, endpoint, checkEndpoint(endpoint)
}

// checkEndpoint keeps keys and credentials off networks without TLS.
func checkEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("awskms: endpoint %.200q: want https://HOST[:PORT]", endpoint)
	}
	if ip, err := netip.ParseAddr(u.Hostname()); u.Scheme == "http" && (err != nil || !ip.IsLoopback()) {
		return fmt.Errorf("awskms: endpoint %.200q: without TLS only a loopback address is asked", endpoint)
	}
	return nil
}
