// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package interop_test

import (
	"context"
	"testing"

	"github.com/modelsec/modelsec-go/registry"
	"github.com/modelsec/modelsec-go/registry/registrytest"
)

// anonymous keeps the tests away from the credentials of whoever runs them.
func anonymous(context.Context, string) (registry.Credential, error) {
	return registry.Credential{}, nil
}

func TestStoresOfOthersKeepTheContract(t *testing.T) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			registrytest.Run(t, func(t *testing.T) registry.WriteStore {
				c := &registry.Client{Credentials: anonymous}
				store, err := c.Open(t.Context(), s.start(t).host+"/team/model")
				if err != nil {
					t.Fatal(err)
				}
				return store.(registry.WriteStore)
			})
		})
	}
}
