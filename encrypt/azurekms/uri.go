// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
)

const scheme = "azurekms"

var (
	hostPattern     = regexp.MustCompile(`^[a-z0-9](?:[a-z0-9-]{0,62})(?:\.[a-z0-9][a-z0-9-]{0,62}){2,8}$`)
	namePattern     = regexp.MustCompile(`^[0-9A-Za-z-]{1,127}$`)
	versionPattern  = regexp.MustCompile(`^[0-9a-f]{32}$`)
	endpointPattern = regexp.MustCompile(`^(?:[a-zA-Z0-9.-]{1,253}|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$`)
)

// keyName is a key, and how it wraps.
type keyName struct {
	host, name, version string
	algorithm           azkeys.EncryptionAlgorithm
}

// id is what key ids are made from: what the service calls the key, in lower
// case, for it ignores case.
func (k keyName) id() string { return "https://" + k.host + "/keys/" + strings.ToLower(k.name) }

// String is for messages.
func (k keyName) String() string {
	if k.version == "" {
		return k.id()
	}
	return k.id() + "/" + k.version
}

// versionOf returns the version of this key that the service says it used.
func (k keyName) versionOf(id *azkeys.ID) (string, error) {
	if id == nil {
		return "", errors.New("the service does not say which key it used")
	}
	version, ok := strings.CutPrefix(strings.ToLower(string(*id)), k.id()+"/")
	if !ok || !versionPattern.MatchString(version) || k.version != "" && version != k.version {
		return "", fmt.Errorf("the service used %.200q", string(*id))
	}
	return version, nil
}

// parseURI takes what New documents.
func parseURI(uri string) (k keyName, endpoint string, err error) {
	rest, ok := strings.CutPrefix(uri, scheme+"://")
	if !ok {
		return k, "", fmt.Errorf("azurekms: %.200q does not begin with %s://", uri, scheme)
	}
	path, query, asked := strings.Cut(rest, "?")
	parts := strings.Split(path, "/")
	k.algorithm = azkeys.EncryptionAlgorithmRSAOAEP256
	switch {
	case len(parts) == 3 && versionPattern.MatchString(parts[2]):
		k.version = parts[2]
	case len(parts) != 2:
		return k, "", fmt.Errorf("azurekms: %.200q is not HOST/KEY or HOST/KEY/VERSION", path)
	}
	k.host, k.name = parts[0], parts[1]
	if !hostPattern.MatchString(k.host) || !namePattern.MatchString(k.name) {
		return k, "", fmt.Errorf("azurekms: %.200q names no key: want the vault's host in full and in lower case, as in models.vault.azure.net, and a name of letters, digits and dashes", path)
	}
	if !asked {
		return k, "", nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return k, "", fmt.Errorf("azurekms: %.300q: %w", uri, err)
	}
	for parameter, v := range values {
		switch {
		case len(v) != 1:
			return k, "", fmt.Errorf("azurekms: parameter %.50q is there twice", parameter)
		case parameter == "algorithm" && (v[0] == string(azkeys.EncryptionAlgorithmRSAOAEP256) || v[0] == string(azkeys.EncryptionAlgorithmA256KW)):
			k.algorithm = azkeys.EncryptionAlgorithm(v[0])
		case parameter == "algorithm":
			return k, "", fmt.Errorf("azurekms: algorithm %.50q; known are RSA-OAEP-256 and A256KW", v[0])
		case parameter == "endpoint" && endpointPattern.MatchString(v[0]):
			endpoint = v[0]
		case parameter == "endpoint":
			return k, "", fmt.Errorf("azurekms: endpoint %.200q: want HOST:PORT", v[0])
		default:
			return k, "", fmt.Errorf("azurekms: parameter %.50q; known are algorithm and endpoint", parameter)
		}
	}
	return k, endpoint, nil
}
