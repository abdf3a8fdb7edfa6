// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package mirrors

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/modelsec/modelsec-go/registry"
)

// registriesConf is the part of registries.conf (version 2) that is about
// mirrors.
type registriesConf struct {
	Registries []containersRegistry `toml:"registry"`
}

type containersRegistry struct {
	Prefix   string             `toml:"prefix"`
	Location string             `toml:"location"`
	Insecure bool               `toml:"insecure"`
	Blocked  bool               `toml:"blocked"`
	Mirrors  []containersMirror `toml:"mirror"`

	// The older and coarser form of pull-from-mirror.
	ByDigestOnly bool `toml:"mirror-by-digest-only"`
}

type containersMirror struct {
	Location string `toml:"location"`
	Insecure bool   `toml:"insecure"`
	Pull     string `toml:"pull-from-mirror"`
}

// ContainersFile returns the registries.conf that podman would use: the file in
// $CONTAINERS_REGISTRIES_CONF, that of the user, or that of the machine. It may
// not exist.
func ContainersFile() string {
	if path := os.Getenv("CONTAINERS_REGISTRIES_CONF"); path != "" {
		return path
	}
	if dir, err := os.UserConfigDir(); err == nil {
		path := filepath.Join(dir, "containers", "registries.conf")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return "/etc/containers/registries.conf"
}

// Containers reads registries.conf, version 2, and the files of the directory
// beside it whose name ends in .d. names are hosts or repositories that will be
// opened (Name of a registry.Reference). As for podman, of all [[registry]]
// tables the one with the longest matching prefix counts for a name:
//
//   - its mirrors become Host.Mirrors. They may answer for tags unless
//     pull-from-mirror is digest-only; tag-only ones are left out, for all that
//     this library fetches in bulk has a digest.
//   - a location that is not the prefix becomes the last mirror. The host that
//     was asked for is still there when it fails.
//   - insecure means plain HTTP, and never TLS that verifies nothing.
//   - a name that is blocked is an error.
//
// Names of one host that come under different tables are an error, because a
// registry.Host holds for the whole host: use one Client for each.
func Containers(file string, names ...string) (map[string]registry.Host, error) {
	registries, err := loadContainers(file)
	if err != nil {
		return nil, fmt.Errorf("mirrors: %w", err)
	}
	hosts := make(map[string]registry.Host)
	for _, name := range names {
		host, _, err := split(name)
		if err != nil {
			return nil, fmt.Errorf("mirrors: %w", err)
		}
		h, err := containersHost(registries, name, host)
		if err != nil {
			return nil, fmt.Errorf("mirrors: %s: %s: %w", file, name, err)
		}
		if other, ok := hosts[host]; ok && (!sameMirrors(h.Mirrors, other.Mirrors) || h.PlainHTTP != other.PlainHTTP) {
			return nil, fmt.Errorf("mirrors: %s: %s and another name of %s come under different tables", file, name, host)
		}
		hosts[host] = h
	}
	return hosts, nil
}

// loadContainers reads the file and its drop-ins. A later table with a prefix
// replaces an earlier one.
func loadContainers(file string) ([]containersRegistry, error) {
	dropIns, err := filepath.Glob(filepath.Join(file+".d", "*.conf"))
	if err != nil {
		return nil, err
	}
	var all []containersRegistry
	for i, path := range append([]string{file}, dropIns...) {
		b, err := readFile(path)
		if i == 0 && absent(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		registries, err := parseContainers(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, r := range registries {
			all = slices.DeleteFunc(all, func(other containersRegistry) bool { return other.Prefix == r.Prefix })
			all = append(all, r)
		}
	}
	return all, nil
}

// parseContainers decodes and checks one file.
func parseContainers(b []byte) ([]containersRegistry, error) {
	var conf registriesConf
	_, unknown, err := decode(b, &conf)
	if err != nil {
		return nil, err
	}
	for _, key := range unknown {
		switch {
		case key[0] == "registries":
			return nil, fmt.Errorf("[registries] is of version 1, which is not read")
		case key[0] == "registry":
			return nil, fmt.Errorf("unknown key %q", key.String())
		}
	}
	for i := range conf.Registries {
		r := &conf.Registries[i]
		r.Location = strings.TrimRight(r.Location, "/")
		if r.Prefix = strings.TrimRight(r.Prefix, "/"); r.Prefix == "" {
			r.Prefix = r.Location
		}
		wild := strings.HasPrefix(r.Prefix, "*.")
		if _, _, err := split(strings.TrimPrefix(r.Prefix, "*.")); err != nil {
			return nil, fmt.Errorf("prefix %q: %w", r.Prefix, err)
		}
		if r.Location == "" && !wild {
			r.Location = r.Prefix
		}
		for _, m := range r.Mirrors {
			if !slices.Contains([]string{"", "all", "digest-only", "tag-only"}, m.Pull) {
				return nil, fmt.Errorf("prefix %q: pull-from-mirror is %q", r.Prefix, m.Pull)
			}
			if m.Pull != "" && r.ByDigestOnly {
				return nil, fmt.Errorf("prefix %q: both pull-from-mirror and mirror-by-digest-only", r.Prefix)
			}
			if _, _, err := split(strings.TrimRight(m.Location, "/")); err != nil {
				return nil, fmt.Errorf("prefix %q: mirror %q: %w", r.Prefix, m.Location, err)
			}
		}
		if r.Location == "" {
			continue
		}
		if _, _, err := split(r.Location); err != nil {
			return nil, fmt.Errorf("prefix %q: location %q: %w", r.Prefix, r.Location, err)
		}
	}
	return conf.Registries, nil
}

// covers returns how much of name a prefix matches, and the path in it.
func (r containersRegistry) covers(name string) (length int, path string, ok bool) {
	prefixHost, path, _ := strings.Cut(r.Prefix, "/")
	host, rest, _ := strings.Cut(name, "/")
	if wild, ok := strings.CutPrefix(prefixHost, "*"); ok {
		if len(host) <= len(wild) || !strings.HasSuffix(host, wild) {
			return 0, "", false
		}
	} else if host != prefixHost {
		return 0, "", false
	}
	if path == "" {
		return len(prefixHost), "", true
	}
	if rest != path && !strings.HasPrefix(rest, path+"/") {
		return 0, "", false
	}
	return len(prefixHost) + 1 + len(path), path, true
}

// containersHost turns the table that counts for name into a Host.
func containersHost(registries []containersRegistry, name, host string) (registry.Host, error) {
	var best containersRegistry
	var under string
	longest := -1
	for _, r := range registries {
		if length, path, ok := r.covers(name); ok && length > longest {
			best, under, longest = r, path, length
		}
	}
	var h registry.Host
	if longest < 0 {
		return h, nil
	}
	if best.Blocked {
		return h, fmt.Errorf("blocked by the table of %q", best.Prefix)
	}
	for _, m := range best.Mirrors {
		if m.Pull == "tag-only" {
			continue
		}
		h.Mirrors = append(h.Mirrors, registry.Mirror{
			URL:     containersURL(strings.TrimRight(m.Location, "/"), m.Insecure),
			Resolve: m.Pull != "digest-only" && !best.ByDigestOnly,
			Under:   under,
		})
	}
	if origin := strings.TrimRight(host+"/"+under, "/"); best.Location != "" && best.Location != origin {
		h.Mirrors = append(h.Mirrors, registry.Mirror{URL: containersURL(best.Location, best.Insecure), Resolve: true, Under: under})
	} else {
		h.PlainHTTP = best.Insecure
	}
	return h, nil
}

func containersURL(location string, insecure bool) string {
	if insecure {
		return "http://" + location
	}
	return "https://" + location
}
