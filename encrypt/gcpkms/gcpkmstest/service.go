// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package gcpkmstest

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/modelsec/modelsec-go/encrypt/encrypttest"
)

// Service returns the states that the suite brings the server and one of its
// keys into. It takes Intercept for itself.
func (s *Server) Service(name string) encrypttest.Service {
	type intercept = func(context.Context, any) error
	var now atomic.Pointer[intercept]
	s.Intercept = func(ctx context.Context, request any) error {
		if f := now.Load(); f != nil {
			return (*f)(ctx, request)
		}
		return nil
	}
	enter := func(f intercept) func(*testing.T) { return func(*testing.T) { now.Store(&f) } }
	answer := func(code codes.Code) func(*testing.T) {
		return enter(func(context.Context, any) error { return status.Error(code, "in the words of the service") })
	}
	return encrypttest.Service{
		Disable:  func(*testing.T) { s.SetEnabled(name, false) },
		Deny:     answer(codes.PermissionDenied),
		Throttle: answer(codes.ResourceExhausted),
		Fail:     answer(codes.Unavailable),
		Quote: enter(func(ctx context.Context, request any) error {
			md, _ := metadata.FromIncomingContext(ctx)
			text := fmt.Sprint(md, request)
			if q, ok := request.(*kmspb.EncryptRequest); ok {
				text += hex.EncodeToString(q.Plaintext)
			}
			return status.Error(codes.OutOfRange, text)
		}),
		Stall: enter(func(ctx context.Context, _ any) error {
			<-ctx.Done() // the client's end of the call, or the server's
			return ctx.Err()
		}),
		Heal: func(*testing.T) {
			s.SetEnabled(name, true)
			now.Store(nil)
		},
	}
}
