// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance_test

import (
	"errors"
	"testing"
	"time"

	"github.com/modelsec/modelsec-go/provenance"
)

// TestSignedWantsTheSignerAtATimeThatCounts outside of a policy as within.
func TestSignedWantsTheSignerAtATimeThatCounts(t *testing.T) {
	day := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	key, other := publicPEM(t, newKey(t).Public()), publicPEM(t, newKey(t).Public())
	person := provenance.Principal{Issuer: "https://issuer.example.com", Subject: "alice@example.com"}
	edit := func(p provenance.Principal, change func(*provenance.Principal)) provenance.Principal {
		change(&p)
		return p
	}
	for name, c := range map[string]struct {
		want   provenance.Principal
		signer provenance.Principal
		times  []time.Time
		ok     bool
	}{
		"key":                    {provenance.Principal{Key: key}, provenance.Principal{Key: key}, nil, true},
		"another key":            {provenance.Principal{Key: other}, provenance.Principal{Key: key}, nil, false},
		"person":                 {person, person, nil, true},
		"another person":         {person, edit(person, func(p *provenance.Principal) { p.Subject = "bob@example.com" }), nil, false},
		"another issuer":         {person, edit(person, func(p *provenance.Principal) { p.Issuer += "/" }), nil, false},
		"key for a person":       {person, provenance.Principal{Key: key}, nil, false},
		"workflow":               {workflowPrincipal(), workflowPrincipal(), nil, true},
		"workflow of another":    {workflowPrincipal(), edit(workflowPrincipal(), func(p *provenance.Principal) { p.SourceOwnerID = "1" }), nil, false},
		"a workflow by itself":   {provenance.Principal{Issuer: workflowPrincipal().Issuer, Subject: workflowPrincipal().Subject}, workflowPrincipal(), nil, false},
		"nobody":                 {provenance.Principal{}, person, nil, false},
		"key that is none":       {provenance.Principal{Key: "x"}, provenance.Principal{Key: "x"}, nil, false},
		"no longer":              {edit(person, func(p *provenance.Principal) { p.NotAfter = day }), person, nil, false},
		"not yet":                {edit(person, func(p *provenance.Principal) { p.NotBefore = day.AddDate(0, 0, 1) }), person, nil, false},
		"no longer, but stamped": {edit(person, func(p *provenance.Principal) { p.NotAfter = day }), person, []time.Time{day.Add(-time.Hour)}, true},
	} {
		err := c.want.Signed(&provenance.Verified{Signer: c.signer, Times: c.times}, day)
		if c.ok != (err == nil) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := (provenance.Principal{}).Signed(&provenance.Verified{Signer: person}, day); !errors.Is(err, provenance.ErrPolicy) {
		t.Errorf("nobody: got %v, want ErrPolicy", err)
	}
}
