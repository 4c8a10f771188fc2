// Package metrics is what Prometheus sees of the processes.
//
// Owns: the names, labels and texts of all metrics (table.go), METRICS.md, and the
// HTTP that they are read by.
//
// Never: a measurement. What is counted is counted by the packages whose work it is;
// the commands hand it in. No label holds what a tenant could make without bound: volume
// ids are of what is mounted on the node. Nothing secret is known here.
//
// Flow: a scrape → promhttp → the histograms that calls were noted in, and Collect's
// functions, which ask at that moment → text. What cannot be learned is left out.
//
// Locks: none of its own.
package metrics
