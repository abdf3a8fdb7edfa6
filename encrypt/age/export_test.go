// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package age

// Wait returns when no program of the key runs any more.
func (k *key) Wait() {
	for range cap(k.running) {
		k.running <- struct{}{}
	}
	for range cap(k.running) {
		<-k.running
	}
}
