// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

// group is one scenario in one direction.
type group struct {
	scenario, verb, model string
	series                []*series
}

// series are the samples of one contender in a group, and what they come to.
type series struct {
	contender   string
	samples     []sample
	bytes       int64
	seconds     float64 // medians
	cpu         float64
	rss         int64
	least, most float64
	ratio       float64 // to the baseline in the same round; 0: there is none
	others      float64 // most cores that anything else kept busy
}

// groups puts samples together, in the order in which they were taken.
func (r *record) groups() []*group {
	var groups []*group
	for _, s := range r.Samples {
		i := slices.IndexFunc(groups, func(g *group) bool { return g.scenario == s.Scenario && g.verb == s.Verb })
		if i < 0 {
			i = len(groups)
			groups = append(groups, &group{scenario: s.Scenario, verb: s.Verb, model: s.Model})
		}
		g := groups[i]
		j := slices.IndexFunc(g.series, func(x *series) bool { return x.contender == s.Contender })
		if j < 0 {
			j = len(g.series)
			g.series = append(g.series, &series{contender: s.Contender, bytes: s.Bytes})
		}
		g.series[j].samples = append(g.series[j].samples, s)
	}
	for _, g := range groups {
		for _, s := range g.series {
			s.summarise(g.baseline())
		}
	}
	return groups
}

// baseline is the oras of the group, as CLI or library; nil: none ran.
func (g *group) baseline() *series {
	for _, s := range g.series {
		if strings.HasPrefix(s.contender, baseline) {
			return s
		}
	}
	return nil
}

func (s *series) summarise(base *series) {
	var seconds, cpu, rss, ratios []float64
	for _, x := range s.samples {
		seconds = append(seconds, x.Seconds)
		cpu = append(cpu, x.CPUSeconds)
		rss = append(rss, float64(x.MaxRSS))
		s.others = max(s.others, x.OtherCPUSeconds/x.Seconds)
		if base == nil {
			continue
		}
		for _, y := range base.samples {
			if y.Round == x.Round {
				ratios = append(ratios, x.Seconds/y.Seconds)
			}
		}
	}
	s.seconds, s.cpu, s.rss = median(seconds), median(cpu), int64(median(rss))
	s.least, s.most, s.ratio = slices.Min(seconds), slices.Max(seconds), median(ratios)
}

// median of nothing is 0.
func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func joinOr(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, " ")
}
