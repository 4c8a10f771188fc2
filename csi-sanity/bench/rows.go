package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// state is what a row begins from.
type state int

const (
	asItIs state = iota
	warm
	cold
)

// row is one line of the table.
type row struct {
	name, unit string
	state      state
	prepare    func(ctx context.Context, w *work) error
	run        func(ctx context.Context, w *work) (float64, error)
	check      func(ctx context.Context, w *work) error
}

// work is what one peer has of it.
type work struct {
	peer     peer
	material *material
	round    int
}

func (w *work) path(format string, args ...any) string {
	return filepath.Join(w.peer.dir(), fmt.Sprintf(format, args...))
}

func allRows() []row {
	return []row{
		{name: "seqw", unit: "MiB/s", run: writeLarge, prepare: removeLarge},
		{name: "seqr.cold", unit: "MiB/s", state: cold, prepare: haveLarge, run: readLarge},
		{name: "seqr.warm", unit: "MiB/s", state: warm, prepare: haveLarge, run: readLarge},
		{name: "rr4k.q1.cold", unit: "IOPS", state: cold, prepare: haveLarge, run: readRandom(1)},
		{name: "rr4k.q16.cold", unit: "IOPS", state: cold, prepare: haveLarge, run: readRandom(16)},
		{name: "mk2000x4k", unit: "s", run: makeSmall, prepare: removeSmallBefore},
		{name: "cat2000.cold", unit: "s", state: cold, prepare: haveSmall, run: readSmall},
		{name: "rm2000", unit: "s", prepare: haveSmall, run: removeSmall},
		{name: "untar", unit: "s", run: untar, check: checkUntar},
		{name: "sqlite.delete", unit: "s", run: sqlite("DELETE"), check: checkSQLite("DELETE")},
		{name: "sqlite.wal", unit: "s", run: sqlite("WAL"), check: checkSQLite("WAL")},
	}
}

// timed is how many seconds f took.
func timed(f func() error) (float64, error) {
	start := time.Now()
	err := f()
	return time.Since(start).Seconds(), err
}

// untar unpacks a source tree, each round into a folder of its own.
func untar(ctx context.Context, w *work) (float64, error) {
	dir := w.path("untar-%d", w.round)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return 0, err
	}
	return timed(func() error {
		cmd := exec.CommandContext(ctx, "tar", "xf", "-", "-C", dir)
		cmd.Stdin = bytes.NewReader(w.material.tar)
		_, err := output(cmd)
		return err
	})
}

func checkUntar(ctx context.Context, w *work) error {
	return w.material.sameTree(ctx, w.path("untar-%d", w.round))
}

const sqliteRows = 2000

// sqlite inserts rows, each in a transaction of its own.
func sqlite(mode string) func(ctx context.Context, w *work) (float64, error) {
	var sql strings.Builder
	fmt.Fprintf(&sql, "PRAGMA journal_mode=%s;\nPRAGMA synchronous=FULL;\nCREATE TABLE t (id INTEGER PRIMARY KEY, v INTEGER, pad TEXT);\n", mode)
	for i := range sqliteRows {
		fmt.Fprintf(&sql, "INSERT INTO t (v, pad) VALUES (%d, '%0100d');\n", i, i)
	}
	return func(ctx context.Context, w *work) (float64, error) {
		return timed(func() error {
			cmd := exec.CommandContext(ctx, "sqlite3", "-batch", "-bail", w.path("%s-%d.db", mode, w.round))
			cmd.Stdin = strings.NewReader(sql.String())
			_, err := output(cmd)
			return err
		})
	}
}

func checkSQLite(mode string) func(ctx context.Context, w *work) error {
	return func(ctx context.Context, w *work) error {
		out, err := output(exec.CommandContext(ctx, "sqlite3", "-batch", "-bail", w.path("%s-%d.db", mode, w.round),
			"PRAGMA integrity_check; SELECT count(*), sum(v) FROM t;"))
		if want := fmt.Sprintf("ok\n%d|%d\n", sqliteRows, sqliteRows*(sqliteRows-1)/2); err == nil && out != want {
			err = errors.New("the database holds " + out)
		}
		return err
	}
}
