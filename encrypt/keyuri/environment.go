// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keyuri

import "strings"

// always are the variables of this process that every helper sees: how to get
// out, whom to trust, and the mode of crypto/fips140.
var always = []string{
	"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG",
}

// variables are those in which the SDKs of our own helpers look for credentials
// and settings. No helper sees those of another.
var variables = map[string][]string{
	"age":      {"AGE_*"},
	"awskms":   {"AWS_*"},
	"azurekms": {"AZURE_*", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"},
	"cdh":      {},
	"gcpkms":   {"GOOGLE_*", "CLOUDSDK_*", "GCE_METADATA_*"},
	"pkcs11":   {"PKCS11_*", "SOFTHSM2_CONF"},
}

// environment is what the helper called name finds beside PATH, HOME and TMPDIR.
// Of one that is not ours these are the variables that begin with its own name.
func environment(name string) []string {
	own, ours := variables[name]
	if !ours {
		own = []string{strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_*"}
	}
	return append(own[:len(own):len(own)], always...)
}
