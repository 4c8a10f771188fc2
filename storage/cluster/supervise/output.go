package supervise

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"sync"

	"gopkg.in/natefinch/lumberjack.v2"
)

// A child writes into a pipe that we copy into its log. Giving it the file itself
// would save the copy, but nobody could rotate it, and its last lines, which an
// error shall show, would have to be read back from a disk that may be full.

const (
	// logMegabytes and logBackups bound a child's log to 40 MiB.
	logMegabytes = 10
	logBackups   = 3
	// tailLines of tailWidth bytes are what fits an error message.
	tailLines = 12
	tailWidth = 300
	// cryLines of a Go program's last cry are kept in front of nothing else: what
	// follows is stacks, and would push the reason out.
	cryLines = 4
)

// lastCry is how a Go program begins to die: a panic, a fatal error of the
// runtime, a fatal line of glog. It only chooses what an error shows.
var lastCry = regexp.MustCompile(`^(panic: |fatal error: |F\d{4} \d\d:)`)

// output is the stdout and stderr of all lives of one child. lumberjack keeps one
// goroutine for each file it has opened, for good: it has no way to end it. There
// is one output per Process, so their number is bounded.
type output struct {
	file *lumberjack.Logger // nil without a log file

	mu struct {
		sync.Mutex
		// INVARIANT: at most tailLines lines, none longer than tailWidth. room is
		// negative until a last cry begins, then how many more lines are taken.
		lines   []string
		partial []byte
		room    int
	}
}

func newOutput(path string) *output {
	o := &output{}
	o.mu.room = -1
	if path != "" {
		o.file = &lumberjack.Logger{Filename: path, MaxSize: logMegabytes, MaxBackups: logBackups}
	}
	return o
}

// Write never fails: a log that cannot be written must not stop the child. The
// tail is kept in memory all the same.
func (o *output) Write(b []byte) (int, error) {
	if o.file != nil {
		_, _ = o.file.Write(b)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	rest := b
	for {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if room := tailWidth - len(o.mu.partial); room > 0 {
			o.mu.partial = append(o.mu.partial, line[:min(room, len(line))]...)
		}
		if !found {
			return len(b), nil
		}
		o.endLineLocked()
		rest = after
	}
}

func (o *output) endLineLocked() {
	line := strings.TrimSpace(string(o.mu.partial))
	if o.mu.room < 0 && lastCry.MatchString(line) {
		o.mu.room = cryLines
	}
	if line != "" && o.mu.room != 0 {
		o.mu.room = max(o.mu.room-1, -1)
		if len(o.mu.lines) == tailLines {
			o.mu.lines = append(o.mu.lines[:0], o.mu.lines[1:]...)
		}
		o.mu.lines = append(o.mu.lines, line)
	}
	o.mu.partial = o.mu.partial[:0]
}

// reset forgets the lines of the life before.
func (o *output) reset() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.lines, o.mu.partial, o.mu.room = nil, nil, -1
}

// tail returns the last lines for an error message: "" when there are none.
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := o.mu.lines
	if len(o.mu.partial) > 0 {
		lines = append(slices.Clip(lines), string(o.mu.partial))
	}
	if len(lines) == 0 {
		return ""
	}
	return "; its last lines:\n  " + strings.Join(lines, "\n  ")
}

func (o *output) close() {
	if o.file != nil {
		_ = o.file.Close()
	}
}
