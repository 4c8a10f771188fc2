package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "holdfast: %s\n", oneLine(err))
		os.Exit(1)
	}
}

// run executes one command line. Everything that it does to the outside goes
// through its arguments, files and processes, so that a test can call it.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	root := newRoot(&app{stdin: stdin, stdout: stdout, stderr: stderr}) //nolint:contextcheck // cobra hands ctx to the command
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// oneLine is err's text without line breaks: errors.Join makes them.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' }), "; ")
}
