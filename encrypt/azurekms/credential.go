// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package azurekms

import (
	"os"
	"slices"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
)

// defaultCredential is the SDK's chain. In a private cloud, whose authority
// AZURE_AUTHORITY_HOST names, Microsoft's list of authorities is not asked
// about it: it may be out of reach, and would not know it.
func defaultCredential() (azcore.TokenCredential, error) {
	known := []string{"", cloud.AzurePublic.ActiveDirectoryAuthorityHost, cloud.AzureGovernment.ActiveDirectoryAuthorityHost, cloud.AzureChina.ActiveDirectoryAuthorityHost}
	authority := os.Getenv("AZURE_AUTHORITY_HOST")
	private := !slices.ContainsFunc(known, func(k string) bool {
		return strings.TrimSuffix(k, "/") == strings.TrimSuffix(authority, "/")
	})
	return azidentity.NewDefaultAzureCredential(&azidentity.DefaultAzureCredentialOptions{
		ClientOptions:            azcore.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}},
		DisableInstanceDiscovery: private,
	})
}
