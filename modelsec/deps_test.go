// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const thisModule = "github.com/modelsec/modelsec-go"

// allowedModules reads testdata/modules.txt: which modules may be required, and
// whether modelsec may link them.
func allowedModules(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "modules.txt"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	allowed := make(map[string]bool)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) < 3 {
			t.Fatalf("no reason in %q", line)
		}
		allowed[fields[0]] = fields[1] == "linked"
	}
	return allowed
}

// linked lists what a package links, as "module package".
func linked(t *testing.T, pkg string) (out [][2]string) {
	t.Helper()
	b, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{with .Module}}{{.Path}} {{$.ImportPath}}{{end}}", pkg).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 2 {
			out = append(out, [2]string{fields[0], fields[1]})
		}
	}
	return out
}

// TestImportBudget: a program that imports modelsec links no cosign, sigstore,
// grpc or cloud package, and few others.
func TestImportBudget(t *testing.T) {
	allowed := allowedModules(t)
	others := 0
	for _, l := range linked(t, "../modelsec") {
		if l[0] == thisModule {
			continue
		}
		if others++; !allowed[l[0]] {
			t.Errorf("links %s of %s", l[1], l[0])
		}
		for _, banned := range []string{"cosign", "sigstore", "grpc", "opentelemetry", "aws", "azure", "cloud.google", "googleapis", "logrus", "kubernetes"} {
			if strings.Contains(l[1], banned) {
				t.Errorf("links %s", l[1])
			}
		}
	}
	if others > 45 {
		t.Errorf("links %d packages of others, want at most 45", others)
	}
	for _, pkg := range []string{"../encrypt", "../provenance"} {
		for _, l := range linked(t, pkg) {
			switch l[0] {
			case thisModule, "github.com/opencontainers/go-digest", "golang.org/x/crypto":
			default:
				t.Errorf("%s links %s", pkg, l[1])
			}
		}
	}
}

// TestRequirementsHaveReasons: go.mod of the root module requires what
// testdata/modules.txt lists, and nothing else.
func TestRequirementsHaveReasons(t *testing.T) {
	b, err := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json", "../go.mod").Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct {
		Require []struct{ Path string }
		Replace []any
	}
	if err := json.Unmarshal(b, &mod); err != nil {
		t.Fatal(err)
	}
	allowed := allowedModules(t)
	for _, r := range mod.Require {
		if _, ok := allowed[r.Path]; !ok {
			t.Errorf("%s is required without a reason in testdata/modules.txt", r.Path)
		}
		delete(allowed, r.Path)
	}
	for path := range allowed {
		t.Errorf("testdata/modules.txt lists %s, which is not required", path)
	}
	if len(mod.Replace) > 0 {
		t.Error("the root module has replace directives, which its users do not see")
	}
}

// TestApplicationsKeepTheirVersions adds this module to applications that use
// grpc and otel and compares what is selected: nothing of a current one moves
// but x/sync, which oras-go demands, and of an old one nothing but golang.org/x.
func TestApplicationsKeepTheirVersions(t *testing.T) {
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for name, app := range map[string]struct{ otel, grpc, moves string }{
		"current": {"v1.47.0", "v1.85.0", "golang.org/x/sync"},
		"old":     {"v1.21.0", "v1.60.1", "golang.org/x/"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			imports := []string{"go.opentelemetry.io/otel", "google.golang.org/grpc"}
			mod := fmt.Sprintf("module example.com/app\n\ngo 1.26.0\n\nrequire (\n\tgo.opentelemetry.io/otel %s\n\tgoogle.golang.org/grpc %s\n)\n", app.otel, app.grpc)
			before := selected(t, dir, mod, imports)
			mod = string(must(os.ReadFile(filepath.Join(dir, "go.mod")))) +
				fmt.Sprintf("\nrequire %s v0.0.0\n\nreplace %s => %s\n", thisModule, thisModule, root)
			after := selected(t, dir, mod, append(imports, thisModule+"/modelsec"))
			if len(before) < 5 || after[thisModule] == "" {
				t.Fatalf("selected before: %v, after: %v", before, after)
			}
			for module, version := range before {
				if got := after[module]; got != "" && got != version && !strings.HasPrefix(module, app.moves) {
					t.Errorf("%s moved from %s to %s", module, version, got)
				}
			}
		})
	}
}

// selected returns the versions of the modules that an application selects.
func selected(t *testing.T, dir, mod string, imports []string) map[string]string {
	t.Helper()
	var main bytes.Buffer
	main.WriteString("package main\n\nimport (\n")
	for _, path := range imports {
		fmt.Fprintf(&main, "\t_ %q\n", path)
	}
	main.WriteString(")\n\nfunc main() {}\n")
	for name, b := range map[string][]byte{"go.mod": []byte(mod), "main.go": main.Bytes()} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) []byte {
		c := exec.CommandContext(t.Context(), "go", args...)
		c.Dir, c.Env = dir, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		var stderr bytes.Buffer
		c.Stderr = &stderr
		out, err := c.Output()
		if err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("go %s: %v: %s", strings.Join(args, " "), err, &stderr)
			}
			t.Skipf("no module proxy: skipping the application with grpc and otel: %s", &stderr)
		}
		return out
	}
	run("mod", "tidy")
	versions := make(map[string]string)
	for line := range strings.Lines(string(run("list", "-m", "-f", "{{.Path}} {{.Version}}", "all"))) {
		fields := strings.Fields(line)
		if len(fields) == 2 {
			versions[fields[0]] = fields[1]
		} else if len(fields) == 1 {
			versions[fields[0]] = "main"
		}
	}
	return versions
}
