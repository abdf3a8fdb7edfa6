// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

// Package keyuri opens the key that a line of configuration names. It is the one
// form in which keys outside of files are written, on command lines and in
// configuration alike:
//
//	awskms:///arn:aws:kms:REGION:ACCOUNT:key/ID
//	azurekms://HOST/KEY[/VERSION]
//	gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY
//	hashivault://[HOST[:PORT]]/[MOUNT/]KEY
//	pkcs11:…                        RFC 7512
//	age1…                           an age recipient; age:FILE for identities
//	helper:NAME[:KEY]               a key of the helper NAME
//	ocicrypt:NAME[:PARAMETER]       a keyprovider of ocicrypt, as helper NAME
//
// Vault and OpenBao are spoken to directly. The package links no cloud SDK: what
// is heavy is reached by way of key helpers, programs called modelsec-helper-NAME
// in PATH (package keyhelper). docs/KEYS.md
// lists what each form takes and what each helper finds in its environment. A URI
// holds no secret, since others can read the command lines of a host.
package keyuri

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/modelsec/modelsec-go/encrypt"
	"github.com/modelsec/modelsec-go/encrypt/keyhelper"
	"github.com/modelsec/modelsec-go/encrypt/vault"
	"github.com/modelsec/modelsec-go/internal/program"
)

// A Key wraps and unwraps. Where the mechanism has two keys and the URI names
// one of them, the other direction is an error of the call.
type Key interface {
	encrypt.Recipient
	encrypt.Identity
	encrypt.Keyed
	encrypt.Caller
	encrypt.Classed
}

// A form is how one kind of URI is opened.
type form struct {
	prefix string
	open   func(ctx context.Context, uri string) (Key, error)
}

var forms = []form{
	{"awskms:", helped("awskms")},
	{"azurekms:", helped("azurekms")},
	{"gcpkms:", helped("gcpkms")},
	{"hashivault://", openVault},
	{"pkcs11:", helped("pkcs11")},
	{"age1", helped("age")},
	{"age:", helped("age")},
	{"helper:", openHelper},
	{"ocicrypt:", openOCICrypt},
}

// Is reports whether text has one of the forms that Open takes. What has none
// is the name of a file; write ./ before one that looks like a URI.
func Is(text string) bool { return find(text) != nil }

func find(text string) *form {
	for i, f := range forms {
		if strings.HasPrefix(text, f.prefix) {
			return &forms[i]
		}
	}
	return nil
}

// ErrUnknown says that a text has none of the forms of this package.
var ErrUnknown = errors.New("keyuri: not the URI of a key")

// Open returns the key that uri names. For forms that are reached through a
// helper it runs the helper once, to learn about the key; where there is none the
// error is a [*MissingHelperError]. The result is safe for concurrent use.
func Open(ctx context.Context, uri string) (Key, error) {
	f := find(uri)
	if f == nil {
		return nil, fmt.Errorf("%w: %.80q", ErrUnknown, uri)
	}
	return f.open(ctx, uri)
}

// A MissingHelperError says that the program which knows a kind of key is not in
// PATH. It wraps what the search came to.
type MissingHelperError struct {
	// Program is what was looked for.
	Program string
	// Install is the command that installs it, empty where it is not one of
	// ours.
	Install string

	err error
}

// Error names the program and, where there is one, the command.
func (e *MissingHelperError) Error() string {
	if e.Install == "" {
		return fmt.Sprintf("keyuri: no program %s in PATH", e.Program)
	}
	return fmt.Sprintf("keyuri: no program %s in PATH; to install it, in a clone of modelsec-go: %s", e.Program, e.Install)
}

// Unwrap returns the cause.
func (e *MissingHelperError) Unwrap() error { return e.err }

// helped returns the opener of a form whose helper takes the whole URI.
func helped(name string) func(context.Context, string) (Key, error) {
	return func(ctx context.Context, uri string) (Key, error) { return open(ctx, name, uri) }
}

// open asks the helper called name for a key.
func open(ctx context.Context, name, key string) (Key, error) {
	path, err := lookup(name)
	if err != nil {
		return nil, err
	}
	return opened(keyhelper.Open(ctx, config(name, path), key))
}

func config(name, path string) keyhelper.Config {
	c := keyhelper.Config{Path: path, Env: program.Variables(name)}
	if name == "age" {
		c.Timeout = time.Minute // somebody may have to touch a token
	}
	return c
}

// helpers are those that examples/ has.
var helpers = []string{"age", "awskms", "azurekms", "cdh", "gcpkms", "pkcs11"}

func lookup(name string) (string, error) {
	path, err := keyhelper.Lookup(name)
	if !errors.Is(err, exec.ErrNotFound) {
		return path, err
	}
	missing := &MissingHelperError{Program: "modelsec-helper-" + name, err: err}
	if slices.Contains(helpers, name) {
		missing.Install = "go -C examples/" + missing.Program + " install ."
	}
	return "", missing
}

// openHelper opens helper:NAME[:KEY].
func openHelper(ctx context.Context, uri string) (Key, error) {
	name, key, _ := strings.Cut(strings.TrimPrefix(uri, "helper:"), ":")
	return open(ctx, name, key)
}

// openOCICrypt opens ocicrypt:NAME[:PARAMETER].
func openOCICrypt(_ context.Context, uri string) (Key, error) {
	name, parameter, _ := strings.Cut(strings.TrimPrefix(uri, "ocicrypt:"), ":")
	path, err := lookup(name)
	if err != nil {
		return nil, err
	}
	return opened(keyhelper.OCICrypt(config(name, path), name, parameter))
}

func openVault(_ context.Context, uri string) (Key, error) {
	c, err := vault.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	return opened(vault.New(c))
}

// opened makes sure that there is no Key beside an error.
func opened[K Key](k K, err error) (Key, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}
