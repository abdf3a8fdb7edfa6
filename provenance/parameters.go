// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/modelsec/modelsec-go/internal/strictjson"
)

// Schema says what the external parameters of a build may be (POLICY.md §1.5):
// they come from outside the builder, so whatever a schema does not name is
// refused. Exactly one of Values, Members, Items and Any is set.
type Schema struct {
	// Values are the strings, numbers and booleans that the value may be, exact.
	// Numbers are float64.
	Values []any
	// Members are the members of an object, which may have no others.
	Members map[string]Schema
	// Items is what each element of an array must be.
	Items *Schema
	// Any admits everything.
	Any bool
	// Optional lets a member be absent.
	Optional bool
}

// Bounds of a schema.
const (
	maxSchemaDepth = 8
	maxSchemaNodes = 1024
)

type schemaDocument struct {
	Values   *[]any                     `json:"values,omitempty"`
	Members  *map[string]schemaDocument `json:"members,omitempty"`
	Items    *schemaDocument            `json:"items,omitempty"`
	Any      bool                       `json:"any,omitempty"`
	Optional bool                       `json:"optional,omitempty"`
}

func (d schemaDocument) schema() Schema {
	s := Schema{Any: d.Any, Optional: d.Optional}
	if d.Values != nil {
		s.Values = *d.Values
	}
	if d.Members != nil {
		s.Members = make(map[string]Schema, len(*d.Members))
		for name, m := range *d.Members {
			s.Members[name] = m.schema()
		}
	}
	if d.Items != nil {
		items := d.Items.schema()
		s.Items = &items
	}
	return s
}

func (s Schema) document() schemaDocument {
	d := schemaDocument{Any: s.Any, Optional: s.Optional}
	if s.Values != nil {
		d.Values = &s.Values
	}
	if s.Members != nil {
		members := make(map[string]schemaDocument, len(s.Members))
		for name, m := range s.Members {
			members[name] = m.document()
		}
		d.Members = &members
	}
	if s.Items != nil {
		items := s.Items.document()
		d.Items = &items
	}
	return d
}

// check refuses a schema that says two things, or nothing that a value could
// meet.
func (s Schema) check() error {
	if s.Members == nil {
		return errors.New("external parameters are an object: want members")
	}
	if s.Optional {
		return errors.New("external parameters are never absent: optional is for members")
	}
	nodes := 0
	return s.checkAt("", 1, &nodes)
}

func (s Schema) checkAt(at string, depth int, nodes *int) error {
	if *nodes++; *nodes > maxSchemaNodes {
		return fmt.Errorf("over %d members and items", maxSchemaNodes)
	}
	if depth > maxSchemaDepth {
		return fmt.Errorf("%s: deeper than %d levels", clip(at), maxSchemaDepth)
	}
	kinds := 0
	for _, set := range []bool{s.Values != nil, s.Members != nil, s.Items != nil, s.Any} {
		if set {
			kinds++
		}
	}
	if kinds != 1 {
		return fmt.Errorf("%s: want exactly one of values, members, items and any", schemaPath(at))
	}
	if s.Values != nil && len(s.Values) == 0 {
		return fmt.Errorf("%s: values is empty, which can never be met", schemaPath(at))
	}
	for _, v := range s.Values {
		if !scalar(v) {
			return fmt.Errorf("%s: value %.64v: want a string, a boolean or a number that readers agree on", schemaPath(at), v)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		if !printable(name) {
			return fmt.Errorf("%s: member %q: want a printable name", schemaPath(at), clip(name))
		}
		if err := s.Members[name].checkAt(at+"."+name, depth+1, nodes); err != nil {
			return err
		}
	}
	if s.Items != nil {
		return s.Items.checkAt(at+"[]", depth+1, nodes)
	}
	return nil
}

func schemaPath(at string) string {
	if at == "" {
		return "externalParameters"
	}
	return "externalParameters" + clip(at)
}

// scalar reports whether v is a value that two readers hold for the same: past
// 2^53 they disagree about numbers.
func scalar(v any) bool {
	switch v := v.(type) {
	case string, bool:
		return true
	case float64:
		return math.Abs(v) <= maxSequence
	}
	return false
}

// match says what in the parameters of a build is not as the schema wants, or
// nothing.
func (s Schema) match(parameters json.RawMessage) string {
	var v any
	if err := strictjson.UnmarshalLenient(parameters, &v, maxStatement); err != nil {
		return err.Error()
	}
	return s.matchAt("", v)
}

func (s Schema) matchAt(at string, v any) string {
	switch {
	case s.Any:
		return ""
	case s.Items != nil:
		list, ok := v.([]any)
		if !ok {
			return schemaPath(at) + " is no array"
		}
		for i, e := range list {
			if reason := s.Items.matchAt(at+"["+strconv.Itoa(i)+"]", e); reason != "" {
				return reason
			}
		}
		return ""
	case s.Members != nil:
		return s.matchMembers(at, v)
	}
	if scalar(v) && slices.Contains(s.Values, v) {
		return ""
	}
	return fmt.Sprintf("%s is %.128q", schemaPath(at), fmt.Sprint(v))
}

func (s Schema) matchMembers(at string, v any) string {
	object, ok := v.(map[string]any)
	if !ok {
		return schemaPath(at) + " is no object"
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		m, ok := s.Members[name]
		if !ok {
			return schemaPath(at+"."+name) + " is not named by the schema"
		}
		if reason := m.matchAt(at+"."+name, object[name]); reason != "" {
			return reason
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Members)) {
		if _, ok := object[name]; !ok && !s.Members[name].Optional {
			return schemaPath(at+"."+name) + " is missing"
		}
	}
	return ""
}
