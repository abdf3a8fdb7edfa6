// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package keys runs providers of keys against other people's code: the transit
// and AppRole engines of Vault itself, behind its HTTP surface, and a keyprovider
// as ocicrypt defines it. Vault is under the Business Source License; it is built
// into these tests and into nothing that anybody is given.
package keys
