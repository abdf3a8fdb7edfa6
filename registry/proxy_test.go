// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package registry_test

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"github.com/modelsec/modelsec-go/internal/ociserver"
	"github.com/modelsec/modelsec-go/registry"
)

// TestProxyOfTheEnvironmentIsUsed runs itself again, because net/http reads
// the environment once in a process. The proxy is on loopback, where the
// registry is not: only what the registry points to is checked.
func TestProxyOfTheEnvironmentIsUsed(t *testing.T) {
	const inner = "MODELSEC_TEST_BEHIND_PROXY"
	if os.Getenv(inner) == "" {
		r := &recorder{Handler: ociserver.New()}
		command := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		command.Env = append(os.Environ(), inner+"=1", "HTTP_PROXY=http://"+serve(t, r), "NO_PROXY=", "no_proxy=")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, req := range r.take() {
			if req.Host != "registry.test" {
				t.Errorf("proxy was asked for %s", req.Host)
			}
		}
		return
	}
	c := &registry.Client{Credentials: anonymous, Hosts: map[string]registry.Host{"registry.test": {PlainHTTP: true}}}
	s := open(t, c, "registry.test/team/model")
	d := pushBlob(t, s, pattern(100_000))
	if _, err := read(t, s, d, 10, 1000); err != nil {
		t.Error(err)
	}
	if _, err := s.Resolve(t.Context(), "v1"); !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", err)
	}
}
