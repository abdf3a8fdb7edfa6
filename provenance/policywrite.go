// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package provenance

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
)

// MarshalJSON returns the policy as the document that ParsePolicy reads. It
// fails for an invalid policy, for UnsafeAcceptUnsigned, and after For: what a
// reference stands for belongs to the call, not to the document.
func (p Policy) MarshalJSON() ([]byte, error) {
	if p.bound != nil {
		return nil, policyErrorf("a policy after For has no JSON form: marshal it before")
	}
	return p.Document()
}

// Document is MarshalJSON without what For says: the bytes that Report.Policy is
// the digest of.
func (p Policy) Document() ([]byte, error) {
	c, err := p.compile()
	switch {
	case err != nil:
		return nil, err
	case p.unsafe:
		return nil, policyErrorf("UnsafeAcceptUnsigned has no JSON form")
	}
	return p.document(c)
}

func (p Policy) document(c *compiled) ([]byte, error) {
	doc := policyDocument{FormatVersion: policyVersion, Principals: make(map[string]principalDocument, len(c.parties))}
	doc.Expires = optionalTime(p.Expires)
	for _, a := range c.parties {
		key := ""
		if a.pub != nil {
			var err error
			if key, err = keyPEM(a.pub); err != nil {
				return nil, err
			}
		}
		doc.Principals[a.Name] = principalDocument{Key: key, Issuer: a.Issuer, Subject: a.Subject,
			SourceRepository: a.SourceRepository, SourceOwnerID: a.SourceOwnerID, SourceRef: a.SourceRef, Trigger: a.Trigger,
			RunnerEnvironment: a.RunnerEnvironment, NotBefore: optionalTime(a.NotBefore), NotAfter: optionalTime(a.NotAfter)}
	}
	doc.addTables(p, c)
	for _, r := range p.Rules {
		doc.Rules = append(doc.Rules, r.document(c))
	}
	return json.Marshal(doc)
}

func (d *policyDocument) addTables(p Policy, c *compiled) {
	for _, b := range p.Builders {
		if d.Builders == nil {
			d.Builders = &[]builderDocument{}
		}
		*d.Builders = append(*d.Builders, builderDocument{b.ID, c.names(b.Signers), b.Level})
	}
	for _, s := range p.Denials {
		if d.Denials == nil {
			d.Denials = &[]denialSourceDocument{}
		}
		*d.Denials = append(*d.Denials, denialSourceDocument{s.Name, c.names(s.Signers), optional(s.Source), s.MinSequence, optionalAge(s.MaxAge)})
	}
	if len(p.Lineage.Repositories) > 0 {
		d.Lineage = &lineageDocument{p.Lineage.Repositories, optionalInt(p.Lineage.MaxDepth), optionalInt(p.Lineage.MaxArtifacts)}
	}
}

// digest names the policy in reports: the digest of its canonical document, so
// that it does not depend on how the file was laid out. What For says is left out.
func (p Policy) digest(c *compiled) digest.Digest {
	if c == nil || p.unsafe {
		return ""
	}
	b, err := p.document(c)
	if err != nil {
		return ""
	}
	return digest.FromBytes(b)
}

func (c *compiled) names(list []Principal) []string {
	var names []string
	for _, p := range list {
		names = append(names, c.name(p))
	}
	return names
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func optionalInt(n int) *int {
	if n <= 0 {
		return nil
	}
	return &n
}

func optionalAge(d time.Duration) *string {
	if d <= 0 {
		return nil
	}
	return optional(d.String())
}

func optionalList(list []string) *[]string {
	if len(list) == 0 {
		return nil
	}
	list = slices.Clone(list)
	return &list
}
