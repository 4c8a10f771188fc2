package stack

import (
	"io"
	"log/slog"

	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
)

// openLogger returns a logger of JSON lines into a rotated file of at most 40 MiB.
func openLogger(dir state.Dir, name string) (*slog.Logger, io.Closer) {
	file := &lumberjack.Logger{Filename: dir.Log(name), MaxSize: 10, MaxBackups: 3}
	return slog.New(slog.NewJSONHandler(file, nil)), file
}
