package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/steps"
)

// confirm asks before something is lost for good. Where nobody can answer, the
// flag --yes must have.
func (a *app) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !steps.IsTerminal(a.stdin) {
		return fmt.Errorf("%s Nobody is there to answer: repeat it with --yes", question)
	}
	_, _ = fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answered := make(chan string, 1)
	// A read of a terminal cannot be cancelled: the goroutine ends with the
	// process, which is about to end.
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n')
		answered <- line
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case line := <-answered:
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
		return errors.New("nothing was done")
	}
}
