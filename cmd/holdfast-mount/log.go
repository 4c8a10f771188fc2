package main

import (
	"io"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// A log is rotated at logMegabytes, and logBackups old ones are kept: enough
	// for days of lifecycle, little enough for a node's disk.
	logMegabytes = 16
	logBackups   = 3
)

// logOptions are the flags of a process's one log.
type logOptions struct {
	file, level string
}

func (o *logOptions) register(flags *pflag.FlagSet) {
	flags.StringVar(&o.file, "log-file", "", "log to this `file`, rotated; standard error if not set")
	flags.StringVar(&o.level, "log-level", "info", "least `level` that is logged: debug, info, warn or error")
}

// args are the flags that lead another process to the same log.
func (o *logOptions) args() []string {
	return []string{"--log-file", o.file, "--log-level", o.level}
}

// open makes the logger. The file is closed by the returned function.
func (o *logOptions) open(stderr io.Writer, process string) (*slog.Logger, func(), error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.level)); err != nil {
		return nil, nil, storage.Errorf(storage.Invalid, "--log-level %q: must be debug, info, warn or error", o.level)
	}
	out, closeLog := stderr, func() {}
	if o.file != "" {
		file := &lumberjack.Logger{Filename: o.file, MaxSize: logMegabytes, MaxBackups: logBackups}
		out, closeLog = file, func() { _ = file.Close() }
	}
	handler := slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level})
	return slog.New(handler).With("process", process), closeLog, nil
}

// beside is the log of the parent: two processes cannot rotate one file.
func (o logOptions) beside(suffix string) logOptions {
	if o.file != "" {
		ext := filepath.Ext(o.file)
		o.file = strings.TrimSuffix(o.file, ext) + suffix + ext
	}
	return o
}
