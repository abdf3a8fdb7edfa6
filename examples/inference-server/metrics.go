// Copyright The modelsec Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

type metrics struct {
	registry *prometheus.Registry
	loads    *prometheus.CounterVec
}

func newMetrics(ref string, current *atomic.Pointer[weights]) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		loads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "modelsec_loads_total", Help: "Versions tried, by result: loaded; refused, for what they are; failed, for another reason.",
		}, []string{"result"}),
	}
	// A rate over a series that begins with its first refusal would miss it.
	for _, result := range []string{"loaded", "refused", "failed"} {
		m.loads.WithLabelValues(result)
	}
	m.registry.MustRegister(m.loads, &served{ref, current}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// served collects what is said of the weights of the moment, so that the
// digest, the size and the time belong to one version.
type served struct {
	ref     string
	current *atomic.Pointer[weights]
}

var (
	servedInfo  = prometheus.NewDesc("modelsec_model_info", "The version that is served.", []string{"ref", "digest"}, nil)
	servedBytes = prometheus.NewDesc("modelsec_model_bytes", "Bytes of its tensors in memory.", nil, nil)
	servedTook  = prometheus.NewDesc("modelsec_model_load_seconds", "How long it took from the first request to the last verified byte.", nil, nil)
)

// Describe implements prometheus.Collector.
func (s *served) Describe(ch chan<- *prometheus.Desc) {
	ch <- servedInfo
	ch <- servedBytes
	ch <- servedTook
}

// Collect implements prometheus.Collector.
func (s *served) Collect(ch chan<- prometheus.Metric) {
	w := s.current.Load()
	if w == nil {
		return
	}
	ch <- prometheus.MustNewConstMetric(servedInfo, prometheus.GaugeValue, 1, s.ref, w.digest.String())
	ch <- prometheus.MustNewConstMetric(servedBytes, prometheus.GaugeValue, float64(w.bytes))
	ch <- prometheus.MustNewConstMetric(servedTook, prometheus.GaugeValue, w.took.Seconds())
}
