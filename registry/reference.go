// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
)

const layoutPrefix = "oci:"

var (
	// Both as distribution-spec 1.1, "Pulling manifests", has them.
	repositoryPattern = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagPattern        = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)

	labelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
)

// Reference names a manifest in a repository, or the repository alone.
type Reference struct {
	Name   string        // host/path, or oci:DIR; what Open takes.
	Tag    string        // May be empty.
	Digest digest.Digest // May be empty; wins over Tag.
}

// ParseReference parses
//
//	host[:port]/path[:tag][@sha256:hex]
//	oci:DIR[:tag][@sha256:hex]
//
// There is no default host: the host must be localhost or contain a dot or a
// port, and is written in lower case, so that one repository has one name. The
// last element of DIR must contain neither a colon nor @.
func ParseReference(s string) (Reference, error) {
	ref, err := parseReference(s)
	if err != nil {
		return Reference{}, fmt.Errorf("reference %.300q: %w", s, err)
	}
	return ref, nil
}

func parseReference(s string) (Reference, error) {
	var ref Reference
	name, local := strings.CutPrefix(s, layoutPrefix)
	separators := "/"
	if local {
		separators = `/\`
	}
	last := strings.LastIndexAny(name, separators) + 1
	if at := strings.IndexByte(name[last:], '@'); at >= 0 {
		ref.Digest = digest.Digest(name[last+at+1:])
		if err := checkDigest(ref.Digest); err != nil {
			return ref, err
		}
		name = name[:last+at]
	}
	if colon := strings.LastIndexByte(name[last:], ':'); colon >= 0 && (last > 0 || local) {
		tag := name[last+colon+1:]
		if err := checkTag(tag); err != nil {
			return ref, err
		}
		ref.Tag, name = tag, name[:last+colon]
		if local && strings.ContainsRune(name[last:], ':') {
			return ref, fmt.Errorf("directory %.100q contains a colon", name[last:])
		}
	}
	if local {
		ref.Name = layoutPrefix + name
		return ref, checkDirectory(name)
	}
	ref.Name = name
	return ref, checkName(name)
}

// String returns the form that [ParseReference] takes.
func (r Reference) String() string {
	s := r.Name
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// checkDigest admits lower-case SHA-256 only, so that a digest has one
// spelling and no weaker or truncated form.
func checkDigest(d digest.Digest) error {
	hex, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || len(hex) != 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return fmt.Errorf("digest %.100q is not sha256: and 64 lower-case hex digits", string(d))
	}
	return nil
}

func checkTag(tag string) error {
	if !tagPattern.MatchString(tag) {
		return fmt.Errorf("tag %.150q is not 1 to 128 letters, digits, '_', '.' or '-', beginning with neither '.' nor '-'", tag)
	}
	return nil
}

func checkTagOrDigest(s string) error {
	if strings.ContainsRune(s, ':') {
		return checkDigest(digest.Digest(s))
	}
	return checkTag(s)
}

func checkDirectory(dir string) error {
	if dir == "" {
		return fmt.Errorf("no directory after %q", layoutPrefix)
	}
	if strings.ContainsFunc(dir, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("directory contains a control character")
	}
	return nil
}

func checkName(name string) error {
	if len(name) > maxReference {
		return fmt.Errorf("host and path have %d bytes, limit %d", len(name), maxReference)
	}
	host, path, ok := strings.Cut(name, "/")
	if !ok {
		return fmt.Errorf("want host/path, as in registry.example.com/team/model:v1, or oci:DIR")
	}
	if err := checkHost(host); err != nil {
		return err
	}
	if !repositoryPattern.MatchString(path) {
		return fmt.Errorf("path %q is not lower-case letters and digits, separated by '/', '.', '_' or '-'", path)
	}
	return nil
}

func checkHost(host string) error {
	name, port, ported := cutPort(host)
	if ported {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || port[0] == '0' {
			return fmt.Errorf("port %q is not a number from 1 to 65535", port)
		}
	}
	if inner, ok := strings.CutPrefix(name, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() || a.Zone() != "" || a.String() != inner {
			return fmt.Errorf("host %q is not an IPv6 address in brackets, shortest form", name)
		}
		return nil
	}
	if name != "localhost" && !strings.Contains(name, ".") && !ported {
		return fmt.Errorf("%q is not a host: there is no default registry, write its name before the path, as in registry.example.com/%s/…", host, host)
	}
	for label := range strings.SplitSeq(name, ".") {
		if !labelPattern.MatchString(label) {
			return fmt.Errorf("host %q is not a lower-case name or an address", host)
		}
	}
	return nil
}

func cutPort(host string) (name, port string, ok bool) {
	colon := strings.LastIndexByte(host, ':')
	if colon < 0 || strings.HasSuffix(host, "]") {
		return host, "", false
	}
	return host[:colon], host[colon+1:], true
}
