// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Modelsec-helper-gcpkms is the key helper for Google Cloud KMS: it makes
// gcpkms:// URIs work wherever a program takes the URI of a key, without the
// Google SDK and gRPC in that program. Standing in PATH is all that it needs;
// credentials are found as package gcpkms says.
package main

import (
	"context"

	"github.com/modelsec/modelsec-go/encrypt/gcpkms"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

func main() {
	keyhelper.Main(func(ctx context.Context, uri string) (*keyhelper.Key, error) {
		k, err := gcpkms.New(ctx, uri, nil)
		if err != nil {
			return nil, err
		}
		// It is closed with the process, after one call.
		return &keyhelper.Key{Type: gcpkms.Type, Resource: k.Resource(), Recipient: k, Identity: k}, nil
	})
}
