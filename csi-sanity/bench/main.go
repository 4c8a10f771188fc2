// Command bench measures Holdfast beside `weed mount` on the same cluster and a
// bare go-fuse loopback, by turns, and checks all that it reads. It starts the
// built binaries in a folder of its own and leaves nothing there.
//
// Cold means: mounted anew by a server that was started anew, its local cache
// deleted, the page cache dropped, that of the storage servers too. Warm: only the
// page cache is dropped. A figure is the median of the rounds.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

type options struct {
	bin, dir, out string
	rounds        int
	sizeMiB       int
	rows, peers   string
	tree          string
}

func main() {
	if len(os.Args) == 4 && os.Args[1] == loopCommand {
		if err := serveLoop(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	var o options
	flag.StringVar(&o.bin, "bin", "bin", "folder with holdfast and holdfast-mount")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "folder on the disk to measure on")
	flag.StringVar(&o.out, "out", "", "file for the tables of a whole run")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds, of which the median counts")
	flag.IntVar(&o.sizeMiB, "size", 1024, "MiB of the large file")
	flag.StringVar(&o.rows, "rows", "", "only rows that begin with one of these, by commas")
	flag.StringVar(&o.peers, "peers", "holdfast,weed,loop", "what is measured, by commas")
	flag.StringVar(&o.tree, "tree", "", "source tree to untar (default: Go's own)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// figure is what one round of one row came to.
type figure struct {
	value float64
	usage usage
}

// results are the figures by row and peer.
type results struct {
	rows    []row
	peers   []string
	rounds  int
	figures map[string]map[string][]figure
	idle    map[string]float64 // resident MiB after the mount
	sizeMiB int
	tree    string
	weed    string
}

func run(ctx context.Context, o options) (err error) {
	rows := chosen(o.rows)
	if len(rows) == 0 || o.rounds < 1 {
		return fmt.Errorf("nothing to measure: rows %q, %d rounds", o.rows, o.rounds)
	}
	m, err := newMaterial(ctx, o)
	if err != nil {
		return err
	}
	c, err := startCluster(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close(ctx)) }()
	var works []*work
	defer func() { // before the cluster goes
		for _, w := range works {
			err = errors.Join(err, w.peer.unmount(context.WithoutCancel(ctx)))
		}
	}()
	res := &results{rows: rows, rounds: o.rounds, figures: map[string]map[string][]figure{}, idle: map[string]float64{}, sizeMiB: o.sizeMiB, tree: m.treeText, weed: c.weedVersion(ctx)}
	for name := range strings.SplitSeq(o.peers, ",") {
		p, err := c.peer(ctx, name)
		if err != nil {
			return err
		}
		if err := p.mount(ctx); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		works = append(works, &work{peer: p, material: m})
		res.peers = append(res.peers, name)
		res.idle[name] = resident(p.processes())
	}
	for round := range o.rounds {
		for _, w := range works {
			w.round = round
		}
		for _, r := range rows {
			for i := range works { // A B C, then B C A: nobody is always first
				w := works[(i+round)%len(works)]
				f, err := c.measure(ctx, r, w)
				if err != nil {
					return fmt.Errorf("round %d, %s, %s: %w", round+1, r.name, w.peer.name(), err)
				}
				if res.figures[r.name] == nil {
					res.figures[r.name] = map[string][]figure{}
				}
				res.figures[r.name][w.peer.name()] = append(res.figures[r.name][w.peer.name()], f)
				fmt.Printf("round %d  %-15s %-9s %10s %-6s  peak %4.0f MiB, CPU %6.2f s, servers %6.2f s\n",
					round+1, r.name, w.peer.name(), number(f.value), r.unit, f.usage.peakMiB, f.usage.cpu, f.usage.servers)
			}
		}
	}
	text := res.markdown()
	fmt.Print("\n", text)
	if o.out == "" {
		return nil
	}
	if len(rows) < len(allRows()) || len(res.peers) < 3 {
		fmt.Printf("\nOnly a part was measured: %s stays as it is.\n", o.out)
		return nil
	}
	return os.WriteFile(o.out, []byte(text), 0o644)
}

// chosen are the rows that begin with one of the prefixes.
func chosen(prefixes string) []row {
	var rows []row
	for _, r := range allRows() {
		if prefixes == "" || slices.ContainsFunc(strings.Split(prefixes, ","), func(p string) bool { return strings.HasPrefix(r.name, p) }) {
			rows = append(rows, r)
		}
	}
	return rows
}

// measure brings a peer into the state that a row begins from and runs it once.
func (c *cluster) measure(ctx context.Context, r row, w *work) (figure, error) {
	if r.prepare != nil {
		if err := r.prepare(ctx, w); err != nil {
			return figure{}, fmt.Errorf("prepare: %w", err)
		}
	}
	switch r.state {
	case cold:
		if err := w.peer.unmount(ctx); err != nil {
			return figure{}, err
		}
		if err := w.peer.forget(ctx); err != nil {
			return figure{}, err
		}
		if err := w.peer.mount(ctx); err != nil {
			return figure{}, err
		}
		if err := dropPages(ctx); err != nil {
			return figure{}, err
		}
	case warm:
		if err := dropPages(ctx); err != nil {
			return figure{}, err
		}
	case asItIs:
	}
	meter, err := c.startMeter(ctx, w.peer)
	if err != nil {
		return figure{}, err
	}
	value, err := r.run(ctx, w)
	if err != nil {
		return figure{}, err
	}
	f := figure{value: value, usage: meter.stop()}
	if r.check != nil {
		if err := r.check(ctx, w); err != nil {
			return figure{}, fmt.Errorf("check: %w", err)
		}
	}
	return f, nil
}
