// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package kmsplugin

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"time"

	"github.com/modelsec/modelsec-go/internal/program"
	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// The protocol, of which two methods are used.
const (
	prefix          = "sigstore-kms-"
	protocolVersion = "v1"
	methodPublicKey = "publicKey"
	methodSign      = "signMessage"
)

// request is what the second argument holds. One of the arguments is there.
type request struct {
	Init      initOptions    `json:"initOptions"`
	Method    string         `json:"methodName"`
	PublicKey *publicKeyArgs `json:"publicKey,omitempty"`
	Sign      *signArgs      `json:"signMessage,omitempty"`
}

type initOptions struct {
	Deadline *time.Time  `json:"ctxDeadline,omitempty"`
	Version  string      `json:"protocolVersion"`
	Resource string      `json:"keyResourceID"`
	Hash     crypto.Hash `json:"hashFunc"`
	RPC      rpcOptions  `json:"rpcOptions"`
}

// rpcOptions are all optional: the deadline is said once, in initOptions.
type rpcOptions struct{}

type publicKeyArgs struct {
	Options struct {
		RPC rpcOptions `json:"rpcOptions"`
	} `json:"publicKeyOptions"`
}

type signArgs struct {
	Options struct {
		RPC     rpcOptions     `json:"rpcOptions"`
		Message messageOptions `json:"messageOptions"`
	} `json:"signOptions"`
}

type messageOptions struct {
	Digest []byte       `json:"digest,omitempty"`
	Hash   *crypto.Hash `json:"hashFunc,omitempty"`
}

type answer struct {
	Error     string           `json:"errorMessage"`
	PublicKey *publicKeyAnswer `json:"publicKey"`
	Sign      *signAnswer      `json:"signMessage"`
}

type publicKeyAnswer struct {
	PEM []byte `json:"publicKeyPEM"`
}

type signAnswer struct {
	Signature []byte `json:"signature"`
}

// call runs the plugin once. As the protocol has it, the exit status says nothing
// where there is an answer.
func (k *Key) call(ctx context.Context, hash crypto.Hash, req request, message []byte) (*answer, error) {
	deadline := time.Now().Add(k.program.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	req.Init = initOptions{Deadline: &deadline, Version: protocolVersion, Resource: k.resource, Hash: hash}
	in, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	p := k.program
	p.Args = []string{protocolVersion, string(in)}
	stdout, stderr, runErr := p.Run(ctx, message)
	switch {
	case ctx.Err() != nil:
		return nil, k.errorf("%w", ctx.Err())
	case errors.Is(runErr, program.ErrTooLong):
		return nil, k.errorf("it answered more than %d bytes", maxAnswer)
	case errors.Is(runErr, program.ErrTimeout):
		return nil, k.errorf("no answer in %v", p.Timeout)
	}
	var a answer
	decodeErr := strictjson.UnmarshalLenient(stdout, &a, maxAnswer)
	switch {
	case decodeErr == nil && a.Error != "":
		return nil, k.errorf("%s", program.Readable(a.Error))
	case decodeErr != nil && runErr != nil:
		return nil, k.errorf("%w: %s", runErr, program.Readable(string(stderr)))
	case decodeErr != nil:
		return nil, k.errorf("it answered %d bytes that are no result", len(stdout))
	}
	return &a, nil
}
