// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package matrix holds every provider of keys against the command line tool: the
// tool itself pushes, pulls and grants with its real helpers, and nothing of a
// key is found where it does not belong. Where the service cannot be run here
// its place is taken by a server of ours (docs/KEYS.md says which).
package matrix
