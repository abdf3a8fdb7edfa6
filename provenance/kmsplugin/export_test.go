// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package kmsplugin

import "time"

// SetTimeout makes calls fail soon, where one that opens a key must not.
func (k *Key) SetTimeout(d time.Duration) { k.program.Timeout = d }
