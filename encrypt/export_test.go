// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

// The vectors hold raw keys, which no program but their reader should handle.
var (
	KeyFrom      = keyFrom
	IdentityFrom = identityFrom

	ErrFileList = errFileList
)

// LayerKey returns the key that keys has of a layer.
func LayerKey(keys PartKeys, artifactID [16]byte, layer uint32) ([32]byte, error) {
	return keys.partKey(artifactID, layer)
}
