// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package program

import (
	"os"
	"runtime"
	"slices"
	"strings"
)

// always are the variables of this process that every key service's program sees: how to get
// out, whom to trust, and the mode of crypto/fips140.
var always = []string{
	"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy",
	"SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG",
}

// services are those in which the SDKs of key services look for credentials and
// settings. No program sees those of another.
var services = map[string][]string{
	"age":      {"AGE_*"},
	"awskms":   {"AWS_*"},
	"azurekms": {"AZURE_*", "IDENTITY_ENDPOINT", "IDENTITY_HEADER", "IDENTITY_SERVER_THUMBPRINT", "IMDS_ENDPOINT", "MSI_ENDPOINT", "MSI_SECRET"},
	"cdh":      {},
	"gcpkms":   {"GOOGLE_*", "CLOUDSDK_*", "GCE_METADATA_*"},
	// As sigstore names them.
	"hashivault": {"VAULT_*", "TRANSIT_SECRET_ENGINE_PATH"},
	"hsm":        {"PKCS11_*", "SOFTHSM2_CONF"},
	"openbao":    {"BAO_*", "TRANSIT_SECRET_ENGINE_PATH"},
	"pkcs11":     {"PKCS11_*", "SOFTHSM2_CONF"},
}

// Variables returns what the program for the key service called name finds in its
// environment, as Program.Env takes it. Of a service that is not known these are
// the variables that begin with its own name.
func Variables(name string) []string {
	own, known := services[name]
	if !known {
		own = []string{strings.ToUpper(strings.ReplaceAll(name, "-", "_")) + "_*"}
	}
	return append(own[:len(own):len(own)], always...)
}

// basic is what every program gets.
func basic() []string {
	if runtime.GOOS == "windows" {
		return []string{"PATH", "GODEBUG", "USERPROFILE", "SYSTEMROOT", "TEMP", "TMP"}
	}
	return []string{"PATH", "GODEBUG", "HOME", "TMPDIR"}
}

// environment returns the variables that Program.Env asks for.
func environment(asked []string) []string {
	var env []string
	pass := func(match func(name string) bool) {
		for _, v := range os.Environ() {
			if name, _, ok := strings.Cut(v, "="); ok && name != "" && match(name) {
				env = append(env, v)
			}
		}
	}
	for _, a := range slices.Concat(basic(), asked) {
		if strings.Contains(a, "=") {
			env = append(env, a)
		} else if prefix, ok := strings.CutSuffix(a, "*"); ok && prefix != "" {
			pass(func(name string) bool { return strings.HasPrefix(name, prefix) })
		} else {
			pass(func(name string) bool { return name == a })
		}
	}
	return env
}
