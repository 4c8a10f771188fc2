package metrics

import (
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// Set is the metrics of one process.
type Set struct {
	of       Process
	registry *prometheus.Registry
}

// New makes a set that tells of its build, and of Go and the process.
func New(of Process, version string) *Set {
	s := &Set{of: of, registry: prometheus.NewRegistry()}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.Collect(func(tell *Tell) { tell.Value(BuildInfo, 1, string(of), version, runtime.Version()) })
	return s
}

// Histogram is one that durations are noted in, in seconds. Its series are there from the
// beginning for each of first, the values of its labels.
func (s *Set) Histogram(name string, buckets []time.Duration, first ...[]string) func(took time.Duration, labels ...string) {
	m := row(s.of, name)
	bounds := make([]float64, len(buckets))
	for i, b := range buckets {
		bounds[i] = b.Seconds()
	}
	h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.name, Help: m.help, Buckets: bounds}, m.labels)
	s.registry.MustRegister(h)
	for _, labels := range first {
		h.WithLabelValues(labels...)
	}
	return func(took time.Duration, labels ...string) { h.WithLabelValues(labels...).Observe(took.Seconds()) }
}

// Collect has f tell values at each scrape. It may take seconds, and may run twice at
// once.
func (s *Set) Collect(f func(*Tell)) { s.registry.MustRegister(&collector{s.of, f}) }

type collector struct {
	of Process
	f  func(*Tell)
}

var _ prometheus.Collector = (*collector)(nil)

// Describe implements prometheus.Collector: what is told varies.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) { c.f(&Tell{c.of, to}) }

// Tell is what a scrape is told with.
type Tell struct {
	of Process
	to chan<- prometheus.Metric
}

func (t *Tell) desc(name string) (*prometheus.Desc, metric) {
	m := row(t.of, name)
	return prometheus.NewDesc(m.name, m.help, m.labels, nil), m
}

// Value tells a gauge or a counter.
func (t *Tell) Value(name string, value float64, labels ...string) {
	desc, m := t.desc(name)
	as := prometheus.GaugeValue
	if m.kind == counter {
		as = prometheus.CounterValue
	}
	t.to <- prometheus.MustNewConstMetric(desc, as, value, labels...)
}

// Bool tells 1 or 0.
func (t *Tell) Bool(name string, value bool, labels ...string) {
	v := 0.0
	if value {
		v = 1
	}
	t.Value(name, v, labels...)
}

// Histogram tells one that somebody else has counted: within are how many took at most
// each of bounds.
func (t *Tell) Histogram(name string, bounds []time.Duration, within []uint64, all uint64, took time.Duration, labels ...string) {
	desc, _ := t.desc(name)
	buckets := make(map[float64]uint64, len(bounds))
	for i, b := range bounds {
		buckets[b.Seconds()] = within[i]
	}
	t.to <- prometheus.MustNewConstHistogram(desc, all, took.Seconds(), buckets, labels...)
}

// Calls are bounds for what goes to a cluster: 1 ms to 30 s and more.
var Calls = []time.Duration{
	time.Millisecond, 3 * time.Millisecond, 10 * time.Millisecond, 30 * time.Millisecond, 100 * time.Millisecond,
	300 * time.Millisecond, time.Second, 3 * time.Second, 10 * time.Second, 30 * time.Second, 2 * time.Minute,
}

// Results are the labels of what was done.
func Results() [][]string { return slices.Clone([][]string{{OK}, {Failed}}) }

// Result is the label of an operation that ended with err.
func Result(err error) string {
	if err != nil {
		return Failed
	}
	return OK
}
