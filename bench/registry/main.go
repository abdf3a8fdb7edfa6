// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Registry is the CNCF distribution registry as one process: plain HTTP on a
// loopback port, blobs below one directory, no authentication, no access log.
// It prints its address and serves until its standard input is closed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"github.com/sirupsen/logrus"
)

func main() {
	root := flag.String("root", "", "directory of the storage")
	limit := flag.Int64("cap", 0, "`MB` per second that one connection moves in one direction; 0: no limit")
	flag.Parse()
	if err := serve(*root, *limit*1e6); err != nil {
		log.Fatal(err)
	}
}

func serve(root string, limit int64) error {
	// The parent holds the other end of the pipe, so no registry outlives it.
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	// To distribution a blob that a client asks about and that is not there is
	// an error worth a line.
	logrus.SetOutput(io.Discard)
	config := &configuration.Configuration{
		Version: configuration.CurrentVersion,
		Log:     configuration.Log{Level: "error", AccessLog: configuration.AccessLog{Disabled: true}},
		Storage: configuration.Storage{
			"filesystem":  {"rootdirectory": root},
			"delete":      {"enabled": true},
			"maintenance": {"uploadpurging": map[any]any{"enabled": false}},
		},
	}
	config.HTTP.Secret = "bench"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(listener.Addr())
	// An unlimited connection is not wrapped: net/http treats *net.TCPConn
	// better than others.
	if limit > 0 {
		listener = cappedListener{listener, limit}
	}
	server := &http.Server{Handler: handlers.NewApp(ctx, config)}
	go server.Serve(listener)
	<-ctx.Done()
	return server.Close()
}
