// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
)

// fileCredentials looks a host up in the files of Docker, then of podman. The
// files are read at every call, which is once for every token, so that a
// rotated credential is seen.
func fileCredentials(ctx context.Context, host string) (Credential, error) {
	repository, _ := ctx.Value(repositoryKey{}).(string)
	for _, path := range authFiles() {
		found, err := fileCredential(ctx, path, host, repository)
		if err != nil {
			return Credential{}, fmt.Errorf("%s: %w", path, err)
		}
		if found != (Credential{}) {
			return found, nil
		}
	}
	return Credential{}, nil
}

// authFiles lists the files in the order that users of both programs expect.
func authFiles() []string {
	var files []string
	home, err := os.UserHomeDir()
	if dir := os.Getenv("DOCKER_CONFIG"); dir != "" {
		files = append(files, filepath.Join(dir, "config.json"))
	} else if err == nil {
		files = append(files, filepath.Join(home, ".docker", "config.json"))
	}
	if path := os.Getenv("REGISTRY_AUTH_FILE"); path != "" {
		files = append(files, path)
	}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		files = append(files, filepath.Join(dir, "containers", "auth.json"))
	}
	if err == nil {
		files = append(files, filepath.Join(home, ".config", "containers", "auth.json"))
	}
	return files
}

// fileCredential looks for the key that fits best: as podman has it, one may
// name a repository or a path above it, and then holds for nothing else. oras-go
// would take any of them for the whole host, whichever comes first.
func fileCredential(ctx context.Context, path, host, repository string) (Credential, error) {
	// A missing file is an empty store.
	store, err := credentials.NewStore(path, credentials.StoreOptions{})
	if err != nil {
		return Credential{}, err
	}
	names, helper, err := authNames(path, host)
	if err != nil {
		return Credential{}, err
	}
	key := host + "/" + repository
	for key != host && !slices.Contains(names, key) {
		key = key[:strings.LastIndexByte(key, '/')]
	}
	if key == host && !slices.Contains(names, host) {
		key = credentials.ServerAddressFromRegistry(host)
		if !helper {
			key = legacyName(names, host)
		}
		if key == "" {
			return Credential{}, nil
		}
	}
	found, err := store.Get(ctx, key)
	return Credential(found), err
}

// legacyName finds the key of a host among those that are written as addresses,
// as Docker once did and still does for its own registry.
func legacyName(names []string, host string) string {
	if address := credentials.ServerAddressFromRegistry(host); slices.Contains(names, address) {
		return address
	}
	for _, name := range names {
		if _, rest, ok := strings.Cut(name, "://"); ok {
			if of, _, _ := strings.Cut(rest, "/"); of == host {
				return name
			}
		}
	}
	return ""
}

// authNames returns the keys of a file in order, and whether a helper program
// is set up for the host.
func authNames(path, host string) (names []string, helper bool, err error) {
	f, err := os.Open(path)
	if os.IsNotExist(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxAuthFile+1))
	if err != nil {
		return nil, false, err
	}
	if len(b) > maxAuthFile {
		return nil, false, fmt.Errorf("%w: more than %d bytes", ErrLimit, maxAuthFile)
	}
	var file struct {
		Auths   map[string]json.RawMessage `json:"auths"`
		Helpers map[string]string          `json:"credHelpers"`
		Store   string                     `json:"credsStore"`
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil, false, nil
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, false, fmt.Errorf("not a configuration of Docker or podman: %w", err)
	}
	for name := range file.Auths {
		names = append(names, name)
	}
	slices.Sort(names)
	return names, file.Store != "" || file.Helpers[credentials.ServerAddressFromRegistry(host)] != "", nil
}

// repositoryKey is that of the repository that a request is about, in its
// context.
type repositoryKey struct{}

// repositoryCache keeps passwords by repository, since files may have several
// for one host. Tokens are kept by scope already, which names the repository.
type repositoryCache struct{ auth.Cache }

func (c repositoryCache) GetToken(ctx context.Context, registry string, scheme auth.Scheme, key string) (string, error) {
	return c.Cache.GetToken(ctx, registry, scheme, cacheKey(ctx, scheme, key))
}

func (c repositoryCache) Set(ctx context.Context, registry string, scheme auth.Scheme, key string, fetch func(context.Context) (string, error)) (string, error) {
	return c.Cache.Set(ctx, registry, scheme, cacheKey(ctx, scheme, key), fetch)
}

func cacheKey(ctx context.Context, scheme auth.Scheme, key string) string {
	if repository, ok := ctx.Value(repositoryKey{}).(string); ok && scheme == auth.SchemeBasic {
		return repository
	}
	return key
}
