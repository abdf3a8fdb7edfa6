// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// hostVariable names another metadata server, as it does for Google's own
// libraries.
const hostVariable = "GCE_METADATA_HOST"

// productName is what the firmware of this machine says.
const productName = "/sys/class/dmi/id/product_name"

// onGoogle says whether this is a machine, a pod or a job of Google Cloud. cosign
// knows too, and its way of asking brings thirty modules.
func onGoogle() bool {
	for _, variable := range []string{hostVariable, "K_SERVICE", "CLOUD_RUN_JOB"} {
		if os.Getenv(variable) != "" {
			return true
		}
	}
	name, err := os.ReadFile(productName)
	return err == nil && strings.HasPrefix(string(name), "Google")
}

// googleToken asks the metadata server for a token of the service account.
func googleToken(ctx context.Context, audience string) (string, error) {
	host := os.Getenv(hostVariable)
	if host == "" {
		host = "metadata.google.internal"
	}
	// The full format has the email address, which is what Fulcio certifies.
	u := "http://" + host + "/computeMetadata/v1/instance/service-accounts/default/identity?" +
		url.Values{"audience": {audience}, "format": {"full"}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Metadata-Flavor", "Google")
	// A transport of its own: the server is on this machine's link, and no proxy
	// may answer for it.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK || res.Header.Get("Metadata-Flavor") != "Google" {
		return "", fmt.Errorf("metadata server %s: status %s; does the machine have a service account?", host, res.Status)
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxToken+1))
	return string(b), err
}
