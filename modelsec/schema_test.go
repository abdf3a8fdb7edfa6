// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package modelsec_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelsec/modelsec-go/internal/vectors"
	"github.com/modelsec/modelsec-go/modelsec"
	"github.com/modelsec/modelsec-go/registry"
)

// TestConfigIsValidModelPack holds the config of every shape and profile to
// the schema that ModelPack publishes.
func TestConfigIsValidModelPack(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(vectors.Dir(t, "modelpack"), "config-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(b, &schema); err != nil {
		t.Fatal(err)
	}
	// The checker must be able to refuse.
	for _, bad := range []string{`{}`, `[]`, `{"descriptor":{},"config":{},"modelfs":{"type":"layers","diffIds":[]}}`,
		`{"descriptor":{"name":1},"config":{},"modelfs":{"type":"layers","diffIds":["x"]}}`,
		`{"descriptor":{"x":""},"config":{},"modelfs":{"type":"layers","diffIds":["x"]}}`,
		`{"descriptor":{},"config":{},"modelfs":{"type":"files","diffIds":["x"]}}`} {
		var v any
		if err := json.Unmarshal([]byte(bad), &v); err != nil || conforms(schema, schema, v, "config") == nil {
			t.Errorf("the checker accepts %s", bad)
		}
	}
	p := newParty(t)
	for shape, src := range shapes() {
		for profile, options := range p.profiles() {
			memory := registry.NewMemory()
			o := options()
			o.Config = &modelsec.Config{Version: "1", Architecture: "transformer", Family: "llama", Licenses: []string{"Apache-2.0"}}
			d := push(t, p.client(memory), tagged, src, o)
			s := openShelf(t, memory, repository)
			m := s.manifest(d)
			var config map[string]any
			if err := json.Unmarshal(s.read(m.Config), &config); err != nil {
				t.Fatal(err)
			}
			if err := conforms(schema, schema, config, "config"); err != nil {
				t.Errorf("%s, %s: %v", shape, profile, err)
			}
			var ids []string
			for _, id := range config["modelfs"].(map[string]any)["diffIds"].([]any) {
				ids = append(ids, id.(string))
			}
			var want []string
			for _, l := range m.Layers {
				want = append(want, string(l.Digest))
			}
			if !slices.Equal(ids, want) {
				t.Errorf("%s, %s: diffIds are not the digests of the layers", shape, profile)
			}
		}
	}
}

// conforms checks a value against the part of JSON Schema that the ModelPack
// schema uses. A keyword that it does not know is an error.
func conforms(root, schema map[string]any, v any, at string) error {
	for keyword, arg := range schema {
		var err error
		switch keyword {
		case "description", "$schema", "$id", "$defs", "properties", "format", "pattern":
		case "$ref":
			name := strings.TrimPrefix(arg.(string), "#/$defs/")
			def, ok := root["$defs"].(map[string]any)[name].(map[string]any)
			if !ok {
				return fmt.Errorf("the schema has no %s", name)
			}
			err = conforms(root, def, v, at)
		case "type":
			err = isType(arg.(string), v, at)
		case "enum":
			if !slices.Contains(arg.([]any), v) {
				err = fmt.Errorf("%s: %v is none of %v", at, v, arg)
			}
		case "minLength":
			if s, ok := v.(string); ok && float64(len(s)) < arg.(float64) {
				err = fmt.Errorf("%s: %q is too short", at, s)
			}
		case "minItems":
			if a, ok := v.([]any); ok && float64(len(a)) < arg.(float64) {
				err = fmt.Errorf("%s: %d items are too few", at, len(a))
			}
		case "items":
			if a, ok := v.([]any); ok {
				for i, item := range a {
					if err == nil {
						err = conforms(root, arg.(map[string]any), item, fmt.Sprintf("%s[%d]", at, i))
					}
				}
			}
		case "required":
			o, _ := v.(map[string]any)
			for _, name := range arg.([]any) {
				if _, ok := o[name.(string)]; !ok {
					err = fmt.Errorf("%s: no %s", at, name)
				}
			}
		case "additionalProperties":
			o, _ := v.(map[string]any)
			properties, _ := schema["properties"].(map[string]any)
			for name := range o {
				if _, ok := properties[name]; !ok && arg == false {
					err = fmt.Errorf("%s: unknown %s", at, name)
				}
			}
		default:
			return fmt.Errorf("the schema uses %q, which this test does not know", keyword)
		}
		if err != nil {
			return err
		}
	}
	properties, _ := schema["properties"].(map[string]any)
	o, _ := v.(map[string]any)
	for name, member := range o {
		if sub, ok := properties[name].(map[string]any); ok {
			if err := conforms(root, sub, member, at+"."+name); err != nil {
				return err
			}
		}
	}
	return nil
}

func isType(name string, v any, at string) error {
	var ok bool
	switch name {
	case "object":
		_, ok = v.(map[string]any)
	case "array":
		_, ok = v.([]any)
	case "string":
		_, ok = v.(string)
	case "boolean":
		_, ok = v.(bool)
	}
	if !ok {
		return fmt.Errorf("%s: %T is not of type %s", at, v, name)
	}
	return nil
}
