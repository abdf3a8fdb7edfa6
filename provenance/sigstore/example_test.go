// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package sigstore_test

import (
	"context"
	"log"
	"os"

	"github.com/sigstore/sigstore/pkg/oauthflow"

	"github.com/modelsec/modelsec-go/provenance"
	"github.com/modelsec/modelsec-go/provenance/sigstore"
)

// A person signs in with a browser, once for each signature. Jobs and machines
// have cosign.AmbientToken instead.
func ExampleNewSigner_interactive() {
	ctx := context.Background()
	root, config, err := sigstore.Fetch(ctx, nil)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := sigstore.NewSigner(sigstore.SignerOptions{
		TrustedRoot: root, SigningConfig: config,
		Token: func(_ context.Context, audience string) (string, error) {
			token, err := oauthflow.OIDConnect("https://oauth2.sigstore.dev/auth", audience, "", "", oauthflow.DefaultIDTokenGetter)
			if err != nil {
				return "", err
			}
			return token.RawString, nil
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	payload, err := os.ReadFile("statement.json")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := signer.Sign(ctx, provenance.PayloadType, payload); err != nil {
		log.Fatal(err)
	}
}
