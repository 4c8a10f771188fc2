package csisanity

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
)

// sqlite runs transactions of a database, in a rollback journal and in a
// write-ahead log by turns: each is there once, and the database is whole.
func (l *load) sqlite(ctx context.Context, rng *rand.Rand) error {
	var rows, sum int64
	path := filepath.Join(l.dir, "database")
	for life := 0; ctx.Err() == nil; life++ {
		mode := []string{"DELETE", "WAL"}[life%2]
		db, err := openDatabase(ctx, path)
		if err != nil {
			return err
		}
		err = l.databaseLife(ctx, db, mode, rng, &rows, &sum)
		if err := errors.Join(err, l.step("close the database", db.close)); err != nil {
			return fmt.Errorf("life %d (%s), %d rows: %w", life, mode, rows, err)
		}
	}
	l.finally(func(ctx context.Context) error {
		db, err := openDatabase(ctx, path)
		if err != nil {
			return err
		}
		got, err := db.ask("PRAGMA integrity_check; SELECT count(*), coalesce(sum(v), 0) FROM t;")
		if want := fmt.Sprintf("ok\n%d|%d", rows, sum); err == nil && got != want {
			err = fmt.Errorf("%q, want %q", got, want)
		}
		if err := errors.Join(err, db.close()); err != nil {
			return fmt.Errorf("the database, mounted anew: %w", err)
		}
		return nil
	})
	return nil
}

func (l *load) databaseLife(ctx context.Context, db *database, mode string, rng *rand.Rand, rows, sum *int64) error {
	ask := func(what, sql, want string) error {
		return l.step(what, func() error {
			got, err := db.ask(sql)
			if err == nil && got != want {
				err = fmt.Errorf("%q, want %q", got, want)
			}
			return err
		})
	}
	if err := ask("open the database", "PRAGMA journal_mode="+mode+"; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, v INTEGER, pad TEXT);", strings.ToLower(mode)); err != nil {
		return err
	}
	for i := 0; i < 60 && ctx.Err() == nil; i++ {
		insert, n, add := "BEGIN; ", rng.IntN(5)+1, int64(0)
		for range n {
			v := rng.Int64N(1000)
			add += v
			insert += fmt.Sprintf("INSERT INTO t (v, pad) VALUES (%d, hex(randomblob(%d))); ", v, rng.IntN(800))
		}
		end := "COMMIT;"
		if rng.IntN(5) == 0 {
			end, n, add = "ROLLBACK;", 0, 0
		}
		*rows, *sum = *rows+int64(n), *sum+add
		want := fmt.Sprintf("%d|%d", *rows, *sum)
		if err := ask(fmt.Sprintf("transaction %d", i), insert+end+" SELECT count(*), coalesce(sum(v), 0) FROM t;", want); err != nil {
			return err
		}
		if i%20 == 19 {
			if err := ask("integrity_check", "PRAGMA integrity_check;", "ok"); err != nil {
				return err
			}
		}
	}
	return nil
}

// database is a sqlite3 process with one open.
type database struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func openDatabase(ctx context.Context, path string) (*database, error) {
	cmd := exec.CommandContext(context.WithoutCancel(ctx), "sqlite3", "-batch", "-bail", path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w (deploy/dev/prepare.sh load)", err)
	}
	return &database{cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}, nil
}

// ask returns all that the statements print.
func (d *database) ask(sql string) (string, error) {
	const end = "-- end of the answer"
	if _, err := fmt.Fprintf(d.stdin, "%s\n.print '%s'\n", sql, end); err != nil {
		rest, _ := io.ReadAll(d.out)
		return "", fmt.Errorf("%w: %s", err, rest)
	}
	var lines []string
	for {
		line, err := d.out.ReadString('\n')
		line = strings.TrimSuffix(line, "\n")
		if line == end {
			return strings.Join(lines, "\n"), nil
		}
		if err != nil {
			return "", fmt.Errorf("sqlite3 ended: %w: %s", err, strings.Join(append(lines, line), "; "))
		}
		lines = append(lines, line)
	}
}

func (d *database) close() error {
	return errors.Join(d.stdin.Close(), d.cmd.Wait())
}
