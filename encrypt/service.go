// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package encrypt

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// What a key service answers, in the words of this package. An [Identity] or
// [Recipient] that calls out wraps one of these around what it was told, makes
// one request for each call and leaves repeating to this package. An error that
// is none of them is final for the stanza that it concerns.
var (
	// ErrDenied says that the service knows the caller and refuses: no
	// permission, a token that is not accepted. It is not asked again.
	ErrDenied = errors.New("encrypt: the key service denied the request")
	// ErrDisabled says that the key cannot be used, by anybody: it is disabled,
	// destroyed, scheduled for destruction or not there. It is not asked again.
	ErrDisabled = errors.New("encrypt: the key is disabled or gone")
	// ErrThrottled says that the service wants fewer requests. It is asked
	// again, after the other identities.
	ErrThrottled = errors.New("encrypt: the key service asks for fewer requests")
	// ErrUnavailable says that the service gave no answer, or one that blames
	// itself: a refused connection, a timeout, a status of 500 and above. It is
	// asked again, after the other identities. A call that runs out of its time
	// is ErrUnavailable whatever it returns.
	ErrUnavailable = errors.New("encrypt: the key service is not available")
)

// Timed is an optional ability of a [Recipient] or [Identity]: to need another
// time for one call than 10 seconds, say because somebody has to touch a token.
// More than two minutes are two minutes; less than or equal to 0 is the default.
type Timed interface {
	Timeout() time.Duration
}

const (
	callTimeout    = 10 * time.Second
	maxCallTimeout = 2 * time.Minute
)

// pauses are what is waited before those who failed for now are asked again.
var pauses = [...]time.Duration{500 * time.Millisecond, 2 * time.Second}

// forNow reports whether the same call may succeed later.
func forNow(err error) bool {
	return errors.Is(err, ErrUnavailable) || errors.Is(err, ErrThrottled)
}

// forGood reports whether the service refuses this key, and not one stanza.
func forGood(err error) bool {
	return errors.Is(err, ErrDenied) || errors.Is(err, ErrDisabled)
}

// timed bounds one call of who, a Recipient or an Identity.
func timed(ctx context.Context, who any, call func(context.Context) error) error {
	limit := callTimeout
	if t, ok := who.(Timed); ok && t.Timeout() > 0 {
		limit = min(t.Timeout(), maxCallTimeout)
	}
	bounded, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err := call(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: no answer in %v: %w", ErrUnavailable, limit, err)
	}
	return err
}

// pause waits before a further round.
func pause(ctx context.Context, round int) error {
	t := time.NewTimer(pauses[round])
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
