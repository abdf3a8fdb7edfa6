// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Ocicrypt is one transfer of an OCI image with encrypted layers, done with
// the ocicrypt library and built with the same Go as everything else here:
//
//	ocicrypt push -ref REF -dir DIR -key PUBLIC
//	ocicrypt pull -ref REF -dir DIR -key PRIVATE
//
// A layer is one file under AES_256_CTR_HMAC_SHA256, its key wrapped as JWE.
// push exists to prepare what pull and skopeo fetch.
package main

import (
	"context"
	"flag"
	"log"
	"os"
	"os/signal"
)

// What a layer is before encryption. Nothing here looks into it.
const layerType = "application/vnd.oci.image.layer.v1.tar"

const encryptedSuffix = "+encrypted"

func main() {
	log.SetFlags(0)
	log.SetPrefix("ocicrypt: ")
	if len(os.Args) < 2 {
		log.Fatal("the first argument must be push or pull")
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	ref := flags.String("ref", "", "reference, host:port/path:tag")
	dir := flags.String("dir", "", "directory with the files, or for them")
	key := flags.String("key", "", "file with the public or private key")
	flags.Parse(os.Args[2:])
	b, err := os.ReadFile(*key)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	switch os.Args[1] {
	case "push":
		err = push(ctx, *ref, *dir, b)
	case "pull":
		err = pull(ctx, *ref, *dir, b)
	default:
		log.Fatal("the first argument must be push or pull")
	}
	if err != nil {
		log.Fatal(err)
	}
}
