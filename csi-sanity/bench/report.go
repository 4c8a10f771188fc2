package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

var titles = map[string]string{"holdfast": "Holdfast", "weed": "weed mount", "loop": "loopback"}

// number prints three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// of picks one figure of each round, in order of size.
func (r *results) of(row, peer string, pick func(figure) float64) []float64 {
	var all []float64
	for _, f := range r.figures[row][peer] {
		all = append(all, pick(f))
	}
	slices.Sort(all)
	return all
}

func median(sorted []float64) float64 {
	n := len(sorted)
	if n == 0 {
		return 0
	}
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func value(f figure) float64 { return f.value }

// ahead is how many times as fast as another peer Holdfast is.
func (r *results) ahead(x row, other string) string {
	ours, theirs := median(r.of(x.name, "holdfast", value)), median(r.of(x.name, other, value))
	if ours == 0 || theirs == 0 {
		return "–"
	}
	if x.unit == "s" {
		return number(theirs / ours)
	}
	return number(ours / theirs)
}

func (r *results) markdown() string {
	var b strings.Builder
	line := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(&b, `# Benchmarks

`+"`make bench`"+` writes this page: Holdfast beside `+"`weed mount`"+` of SeaweedFS %s on the same cluster (master, two volume servers, filer and gateway on the same machine), and a bare go-fuse loopback onto the local disk (every read and write through its process, no kernel passthrough), by turns. It checks every byte that it reads. A figure is the median of %d rounds, with the least and the greatest. BENCH='-rounds 1 -rows seqw,seqr' runs a part of it, and more is said by BENCH=-help.

%s, %s. Client and servers share the cores, so what makes the servers work harder is slower by that too. Differences below 1.3 are noise on most machines.

Cold: mounted anew by a server that was started anew, its local cache deleted, the page cache dropped for all, the storage's too. Warm: only the page cache is dropped. The large file has %d MiB, random reads go on for %v; %s`+"`untar`"+` is of Go's source (%s), `+"`sqlite`"+` inserts %d rows in as many transactions.

`, r.weed, r.rounds, machine(), time.Now().UTC().Format("2 January 2006"), r.sizeMiB, randomSpan,
		"`mk`, `cat` and `rm` are of 2,000 files of 4 KiB, by one thread; ", or(r.tree, "not run"), sqliteRows)

	head := []string{"row", "unit"}
	for _, p := range r.peers {
		head = append(head, titles[p])
	}
	head = append(head, "as fast as weed mount, times", "as fast as the loopback, times")
	line(head...)
	line(slices.Repeat([]string{"---"}, len(head))...)
	for _, x := range r.rows {
		cells := []string{x.name, x.unit}
		for _, p := range r.peers {
			all := r.of(x.name, p, value)
			cell := number(median(all))
			if len(all) > 1 {
				cell += fmt.Sprintf(" (%s–%s)", number(all[0]), number(all[len(all)-1]))
			}
			cells = append(cells, cell)
		}
		line(append(cells, r.ahead(x, "weed"), r.ahead(x, "loop"))...)
	}

	b.WriteString("\nWhat it took: the peak of resident memory of what serves the mount (MiB), its CPU and that of the storage's servers (seconds), medians.\n\n")
	head = []string{"row"}
	for _, p := range r.peers {
		head = append(head, titles[p]+" MiB", "CPU", "servers' CPU")
	}
	line(head...)
	line(slices.Repeat([]string{"---"}, len(head))...)
	cells := []string{"idle"}
	for _, p := range r.peers {
		cells = append(cells, number(r.idle[p]), "", "")
	}
	line(cells...)
	for _, x := range r.rows {
		cells := []string{x.name}
		for _, p := range r.peers {
			cells = append(cells,
				number(median(r.of(x.name, p, func(f figure) float64 { return f.usage.peakMiB }))),
				number(median(r.of(x.name, p, func(f figure) float64 { return f.usage.cpu }))),
				number(median(r.of(x.name, p, func(f figure) float64 { return f.usage.servers }))))
		}
		line(cells...)
	}
	return b.String()
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// machine says what was measured on.
func machine() string {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	version, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	info, _ := os.ReadFile("/proc/meminfo")
	var kib float64
	_, _ = fmt.Sscanf(string(info), "MemTotal: %f kB", &kib) // 0 where there is none
	return fmt.Sprintf("%d cores, %.0f GiB, Linux %s", runtime.NumCPU(), kib/(1<<20), version)
}
