// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package index_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/modelsec/modelsec-go/internal/index"
)

// TestCheckPathRefusesWhatIsNotSafeToCreate goes through FORMAT.md §5.2. The
// message must say what is wrong, so that no path fails for another reason.
func TestCheckPathRefusesWhatIsNotSafeToCreate(t *testing.T) {
	long := strings.Repeat("x", 255)
	for want, paths := range map[string][]string{
		"want 1 to 1024":  {"", strings.Repeat(long+"/", 4) + "x", strings.Repeat("a/", 512) + "b"},
		"component of":    {long + "x", "a/" + long + "x/b", strings.Repeat("é", 128)},
		"not UTF-8":       {"a\xff", "\xc0\xae\xc0\xae/x", "\xed\xa0\x80", "a/\xc3"},
		"clean relative":  {"/", "/abs", "..", ".", "../x", "a/../x", "a/..", "a/./b", "./a", "a//b", "a/", "a/b/", "//host/share"},
		"holds the":       {"a\x00b", "\n", "a\tb", "a\x1fb", "a\x7fb", "\x1b[2J", `a\b`, `..\x`, `\\host\share`, "C:", "C:/x", "a:stream", `\`, "\r"},
		"ends in a dot":   {"a.", "a/b./c", "a ", "a /b", "...", ".. /x", "a/.../b", ". "},
		"names a device":  {"CON", "con", "Prn", "aux", "nul", "NUL.txt", "nul.tar.gz", "COM1", "com0", "LPT9", "lpt3.weights", "a/aux/b", "a/CON.d/b", "NUL .txt", "con  .x"},
		"is reserved":     {".modelsec", ".modelsec.index", ".modelsec-complete", ".modelsec/x", ".modelsec-packed/weight-00001.tar", ".MODELSEC", ".ModelSec-x", ".model\u017fec", ".modelsecurity"},
		"path of 1025":    {strings.Repeat(long+"/", 4) + "x"},
		"path of 4194304": {strings.Repeat("x", 4<<20)},
	} {
		for _, p := range paths {
			if err := index.CheckPath(p); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%.40q: got %v, want an error that says %q", p, err, want)
			} else if len(err.Error()) > 500 {
				t.Errorf("%.40q: the message has %d bytes", p, len(err.Error()))
			}
			if err := index.CheckPaths([]string{"a-good-one", p}); err == nil {
				t.Errorf("%.40q: accepted in a list", p)
			}
		}
	}
}

var goodPaths = []string{
	"model.safetensors", "model-00001-of-00030.safetensors", ".gitattributes", "a/b/c/d", "..a", "a..b", ".a/.b", "-rf", "~", "$HOME",
	"with space", "a/with space.txt", " leading", "конфиг.json", "模型/权重.bin", "café", "\U0001F600", "a*?\"<>|b",
	"CONFIG", "console", "com", "com10", "comx", "lpt", "aux1", "nulls", "con-1", "x.con", "x/.modelsec", "modelsec", ".models", ".model",
	"a%2e%2e%2fb", "%", strings.Repeat(strings.Repeat("y", 255)+"/", 3) + strings.Repeat("y", 255), strings.Repeat("z", 255),
}

func TestCheckPathAcceptsWhatModelsHold(t *testing.T) {
	for _, p := range goodPaths {
		if err := index.CheckPath(p); err != nil {
			t.Errorf("%q: %v", p, err)
		}
		if !filepath.IsLocal(filepath.FromSlash(p)) {
			t.Errorf("%q is accepted and not local", p)
		}
	}
	if err := index.CheckPaths(goodPaths); err != nil {
		t.Error(err)
	}
	if err := index.CheckPaths(nil); err != nil {
		t.Error(err)
	}
}

func TestCheckPathsRefusesTwoPathsForOneFile(t *testing.T) {
	for name, paths := range map[string][]string{
		"equal":                    {"a", "a"},
		"case of ASCII":            {"README", "readme"},
		"case of a directory":      {"A/x", "a/x"},
		"case of Latin":            {"É", "é"},
		"case of Greek":            {"ΣΑΣ", "σας"},
		"final sigma":              {"σ", "ς"},
		"case of Cyrillic":         {"Ж", "ж"},
		"Kelvin sign":              {"\u212a", "k"},
		"long s":                   {"\u017f", "S"},
		"sharp s":                  {"\u1e9e", "ß"},
		"titlecase":                {"\u01c5", "\u01c6"},
		"Deseret":                  {"\U00010400", "\U00010428"},
		"file and directory":       {"a", "a/b"},
		"directory and file":       {"a/b", "a"},
		"file and far directory":   {"a/b", "a/b/c/d"},
		"directory in other case":  {"A/b/c", "a/B"},
		"directory under long s":   {"\u017f/x", "s"},
		"last of many":             append(slices.Clone(goodPaths), "MODEL.safetensors"),
		"directory of one of many": append(slices.Clone(goodPaths), "a/b"),
	} {
		if err := index.CheckPaths(paths); err == nil {
			t.Errorf("%s: %q were accepted", name, paths)
		}
		slices.Reverse(paths)
		if err := index.CheckPaths(paths); err == nil {
			t.Errorf("%s: %q were accepted", name, paths)
		}
	}
}

func TestCheckPathsAcceptsNeighbours(t *testing.T) {
	for _, paths := range [][]string{
		{"a", "ab", "a.b", "a-b", "a b"}, {"a/b", "a/c", "a-b", "a.b/c"}, {"ß", "ss"}, {"İ", "i", "ı"}, {"ﬁ", "fi"}, {"a/b/c", "b/c", "c"},
	} {
		if err := index.CheckPaths(paths); err != nil {
			t.Errorf("%q: %v", paths, err)
		}
	}
}

func TestCheckDigestTakesOneSpellingOfOneAlgorithm(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	if err := index.CheckDigest(layer("0", 0).Digest); err != nil {
		t.Error(err)
	}
	for _, s := range []string{"", hex, "sha256:", "sha256:" + hex[1:], "sha256:" + hex + "0", "SHA256:" + hex, "sha256:" + strings.ToUpper(hex),
		"sha512:" + hex, "sha512:" + hex + hex, "sha256-" + hex, "sha256:" + hex[:63] + "g", "sha256:" + hex[:63] + "\n", " sha256:" + hex[1:], "md5:" + hex[:32], strings.Repeat("x", 1<<20)} {
		if err := index.CheckDigest(digest.Digest(s)); err == nil {
			t.Errorf("%.80q was accepted", s)
		} else if len(err.Error()) > 500 {
			t.Errorf("%.80q: the message has %d bytes", s, len(err.Error()))
		}
	}
}
