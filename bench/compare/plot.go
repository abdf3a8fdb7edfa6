// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"html"
	"strings"
)

// Measures of the plot in pixels.
const (
	plotWidth  = 760
	plotLeft   = 180 // names
	plotRight  = 150 // numbers
	plotRow    = 24
	plotBar    = 14
	plotHeader = 44
)

// plot draws the medians as bars, a panel for each group, and every sample as
// a dot. Panels have scales of their own, which begin at zero.
func plot(groups []*group) []byte {
	height := 12
	for _, g := range groups {
		height += plotHeader + plotRow*len(g.series)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Seconds by contender">`+"\n",
		plotWidth, height, plotWidth, height)
	b.WriteString(`<style>text{font:12px system-ui,sans-serif;fill:#24292f}.h{font-weight:600;font-size:13px}.n{text-anchor:end}` +
		`.ours{fill:#1f6feb}.other{fill:#8c959f}.floor{fill:#d0d7de}.dot{fill:#24292f;fill-opacity:.55}</style>` + "\n")
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#ffffff"/>`+"\n", plotWidth, height)
	y := 12
	for _, g := range groups {
		g.draw(&b, y)
		y += plotHeader + plotRow*len(g.series)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (g *group) draw(b *bytes.Buffer, y int) {
	fmt.Fprintf(b, `<text class="h" x="12" y="%d">%s: %s (seconds, less is better)</text>`+"\n", y+20, title(g.verb), html.EscapeString(g.model))
	most := 0.0
	for _, s := range g.series {
		most = max(most, s.most)
	}
	scale := float64(plotWidth-plotLeft-plotRight) / most
	for i, s := range g.series {
		top := y + plotHeader - 10 + i*plotRow
		middle := top + plotBar/2
		fmt.Fprintf(b, `<text class="n" x="%d" y="%d">%s</text>`, plotLeft-8, middle+4, html.EscapeString(s.contender))
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d"/>`, class(s.contender), plotLeft, top, s.seconds*scale, plotBar)
		for _, x := range s.samples {
			fmt.Fprintf(b, `<circle class="dot" cx="%.1f" cy="%d" r="2"/>`, plotLeft+x.Seconds*scale, middle)
		}
		label := fmt.Sprintf("%.2f s", s.seconds)
		if s.ratio > 0 {
			label += fmt.Sprintf("  %.2f×", s.ratio)
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", plotLeft+s.most*scale+10, middle+4, label)
	}
}

// class colours what is ours, what nobody can beat, and the others.
func class(contender string) string {
	switch {
	case strings.HasPrefix(contender, "modelsec"), strings.HasPrefix(contender, "without lanes"):
		return "ours"
	case strings.HasSuffix(contender, "floor"):
		return "floor"
	}
	return "other"
}
