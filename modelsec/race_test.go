// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

//go:build race

package modelsec_test

// raceEnabled makes what takes long smaller.
const raceEnabled = true
