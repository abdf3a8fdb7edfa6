// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gcpkms

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
)

const scheme = "gcpkms"

var (
	// namePattern wants the project's id and not its number: a key has one name.
	namePattern = regexp.MustCompile(`^projects/(?:[a-z0-9.-]{1,100}:)?[a-z][a-z0-9-]{0,99}/locations/[a-z0-9-]{1,63}/keyRings/[a-zA-Z0-9_-]{1,63}/cryptoKeys/[a-zA-Z0-9_-]{1,63}$`)
	// hostPattern wants a port, as gRPC does.
	hostPattern = regexp.MustCompile(`^(?:[a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$`)
)

// parseURI takes what New documents.
func parseURI(uri string) (name, endpoint string, err error) {
	rest, ok := strings.CutPrefix(uri, scheme+"://")
	if !ok {
		return "", "", fmt.Errorf("gcpkms: %.200q does not begin with %s://", uri, scheme)
	}
	name, query, asked := strings.Cut(rest, "?")
	if !namePattern.MatchString(name) {
		hint := ""
		if strings.Contains(name, "/cryptoKeyVersions/") {
			hint = ": leave the version out, the service finds it"
		}
		return "", "", fmt.Errorf("gcpkms: %.300q is not projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY with the id of a project%s", name, hint)
	}
	if !asked {
		return name, "", nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", "", fmt.Errorf("gcpkms: %.300q: %w", uri, err)
	}
	for parameter, v := range values {
		if parameter != "endpoint" || len(v) != 1 {
			return "", "", fmt.Errorf("gcpkms: parameter %.50q: known is endpoint, once", parameter)
		}
		endpoint = v[0]
	}
	if !hostPattern.MatchString(endpoint) {
		return "", "", fmt.Errorf("gcpkms: endpoint %.200q: want HOST:PORT", endpoint)
	}
	return name, endpoint, nil
}
