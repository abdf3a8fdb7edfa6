// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package keyhelper

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/internal/program"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// call runs the program once.
func (h *Helper) call(ctx context.Context, req request) (*answer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	in, err := json.Marshal(req)
	if err != nil {
		panic("keyhelper: strings and bytes do not encode: " + err.Error())
	}
	defer clear(in)
	c := h.config
	stdout, stderr, runErr := program.Program{Path: c.Path, Args: c.Args, Env: c.Env, Timeout: c.Timeout, Answer: maxMessage}.Run(ctx, in)
	defer clear(stdout)
	switch {
	case ctx.Err() != nil:
		return nil, h.errorf("%w", ctx.Err())
	case errors.Is(runErr, program.ErrTooLong):
		return nil, h.errorf("it answered more than %d bytes", maxMessage)
	case errors.Is(runErr, program.ErrTimeout):
		return nil, h.errorf("%w: no answer in %v", encrypt.ErrUnavailable, c.Timeout)
	}
	var a answer
	decodeErr := strictjson.UnmarshalLenient(stdout, &a, maxMessage)
	switch {
	case decodeErr == nil && a.Error != nil:
		said := program.Readable(a.Error.Message)
		if known := errOf(a.Error.Code); known != nil {
			return nil, h.errorf("%w: %s", known, said)
		}
		return nil, h.errorf("it failed: %s", said)
	case runErr != nil:
		return nil, h.errorf("%w: %s", runErr, program.Readable(string(stderr)))
	case decodeErr != nil:
		// The document may hold a key, so nothing of it is quoted.
		return nil, h.errorf("it answered %d bytes that are no keyprovider result", len(stdout))
	}
	return &a, nil
}
