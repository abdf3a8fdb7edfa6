// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Modelsec-helper-awskms is the key helper for AWS KMS: it makes awskms:// URIs
// work wherever a program takes the URI of a key, without the AWS SDK in that
// program. Standing in PATH is all that it needs; credentials are found as
// package awskms says.
package main

import (
	"context"

	"github.com/modelsec/modelsec-go/encrypt/awskms"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
)

func main() {
	keyhelper.Main(func(ctx context.Context, uri string) (*keyhelper.Key, error) {
		k, err := awskms.New(ctx, uri, nil)
		if err != nil {
			return nil, err
		}
		return &keyhelper.Key{Type: awskms.Type, Resource: k.Resource(), Recipient: k, Identity: k}, nil
	})
}
