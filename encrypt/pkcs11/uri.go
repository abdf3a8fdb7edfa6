// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package pkcs11

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
)

// maxURI is more than a URI with all attributes has.
const maxURI = 8 << 10

// ParseURI returns the configuration that a URI of RFC 7512 describes:
//
//	pkcs11:token=T;object=O;id=%01;type=secret-key?module-path=/…/lib.so&pin-source=file:/…
//
// Attributes of the token are token, serial, manufacturer and model; of the key
// object, id and type, which can only be secret-key; of the query module-path,
// pin-source and pin-value. All others are errors, as leaving one out could name
// another key. Without module-path the library is that of PKCS11_MODULE_PATH;
// without pin-source and pin-value the PIN is that of PKCS11_PIN, and where that
// is not set either there is no login. A pin-source is a file, read at each login;
// programs are not run. A pin-value is on the command line for everybody on the
// host to read.
func ParseURI(uri string) (Config, error) { return parse(uri, "secret-key") }

// ParseSignerURI is ParseURI for a Signer: the type can only be private.
func ParseSignerURI(uri string) (Config, error) { return parse(uri, "private") }

func parse(uri, kind string) (Config, error) {
	rest, ok := strings.CutPrefix(uri, "pkcs11:")
	if !ok || len(uri) > maxURI {
		return Config{}, errors.New("pkcs11: want pkcs11:token=…;object=…?module-path=…")
	}
	path, query, _ := strings.Cut(rest, "?")
	c := Config{Module: os.Getenv("PKCS11_MODULE_PATH")}
	if pin := os.Getenv("PKCS11_PIN"); pin != "" {
		c.PIN = func() (string, error) { return pin, nil }
	}
	var pins int
	seen := make(map[string]bool)
	err := attributes(path, ";", seen, func(name, value string) error {
		switch name {
		case "token":
			c.Token = value
		case "serial":
			c.Serial = value
		case "manufacturer":
			c.Manufacturer = value
		case "model":
			c.Model = value
		case "object":
			c.Object = value
		case "id":
			c.ID = []byte(value)
		case "type":
			if value != kind {
				return errors.New("type is not " + kind)
			}
		default:
			return fmt.Errorf("attribute %.40q is not known", name)
		}
		return nil
	})
	if err == nil {
		err = attributes(query, "&", seen, func(name, value string) error {
			switch name {
			case "module-path":
				c.Module = value
			case "pin-value":
				pins++
				c.PIN = func() (string, error) { return value, nil }
			case "pin-source":
				pins++
				file := strings.TrimPrefix(strings.TrimPrefix(value, "file://"), "file:")
				if !strings.HasPrefix(file, "/") {
					return errors.New("pin-source is not the absolute path of a file")
				}
				c.PIN = pinFile(file)
			default:
				return fmt.Errorf("attribute %.40q is not known", name)
			}
			return nil
		})
	}
	if err == nil && pins > 1 {
		err = errors.New("both pin-source and pin-value")
	}
	if err == nil {
		return c, c.check()
	}
	return Config{}, fmt.Errorf("pkcs11: URI: %w", err)
}

// attributes calls set for each of a list, with the percent encoding undone.
func attributes(list, separator string, seen map[string]bool, set func(name, value string) error) error {
	if list == "" {
		return nil
	}
	for a := range strings.SplitSeq(list, separator) {
		name, encoded, ok := strings.Cut(a, "=")
		value, err := url.PathUnescape(encoded)
		if !ok {
			// The rest of a PIN, maybe, whose & was not written as %26.
			return errors.New("an attribute has no value")
		}
		if err != nil || value == "" {
			return fmt.Errorf("attribute %.40q has no value that can be read", name)
		}
		if seen[name] {
			return fmt.Errorf("attribute %.40q is there twice", name)
		}
		seen[name] = true
		if err := set(name, value); err != nil {
			return err
		}
	}
	return nil
}

// pinFile returns the PIN in a file, without the line end.
func pinFile(path string) func() (string, error) {
	return func() (string, error) {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxAttribute+1))
		defer clear(b)
		if err != nil {
			return "", err
		}
		if len(b) > maxAttribute {
			return "", fmt.Errorf("%s has more than %d bytes", path, maxAttribute)
		}
		return string(bytes.TrimRight(b, "\r\n")), nil
	}
}
