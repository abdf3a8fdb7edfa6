// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Kserve-storage-initializer fills the volumes of a pod with attested models
// before its server starts. It speaks the protocol of KServe's storage
// initializers, and serves any pod as an init container:
//
//	kserve-storage-initializer modelsec://HOST/REPOSITORY[:TAG][@DIGEST] DIR [URI DIR]...
//
// Every DIR is absent, empty, a mount point that holds no files, or what this
// command completed there before, which it replaces: what a volume held while
// other containers could write to it proves nothing. No file has its name
// before every byte of its model was verified; in a mount point, the file
// .modelsec-complete comes last.
//
// A tag is resolved once, here: policy, keys and bytes are all those of the
// digest that is logged.
//
// It is configured by its environment:
//
//	MODELSEC_POLICY    policy file (docs/POLICY.md); or
//	MODELSEC_KEY       public key file of the publisher
//	MODELSEC_IDENTITY  what opens encrypted models, separated by spaces: identity
//	                   files, or keys of a key service by URI (docs/KEYS.md)
//	MODELSEC_CACHE     directory with verified segments that pods of a node share
//
// Credentials of registries are read where Docker and Podman keep them.
//
// Exit status: 0 the models are in place; 1 failed; 2 misconfigured; 3 refused:
// the policy does not admit the model or a byte is not what was signed; 4 no
// key opens it; 5 the registry; 130 interrupted. The reason is logged as JSON
// and left in the pod's termination message.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

// terminationLog is where Kubernetes reads why a container ended.
const terminationLog = "/dev/termination-log"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	err := initialize(ctx, os.Args[1:], os.Getenv, log)
	status := statusOf(ctx, err)
	stop()
	if err != nil {
		log.Error("no model for this pod", "status", status, "error", err.Error())
		leaveMessage(terminationLog, err)
	}
	os.Exit(status)
}

// leaveMessage writes the reason where Kubernetes shows it, if that is where
// this process runs.
func leaveMessage(path string, reason error) {
	const limit = 4 << 10 // Kubernetes keeps no more
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return
	}
	defer f.Close()
	text := reason.Error()
	f.WriteString(text[:min(len(text), limit)])
}
