// findweed prints the path of the weed that "holdfast up" would run, after its
// download where this machine does not have it. What makes an image of that
// binary asks it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/stack"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

// wait is generous for a download of 50 MB.
const wait = 10 * time.Minute

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "findweed:", err)
		os.Exit(1)
	}
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	weed, err := cluster.FindWeed(ctx, cluster.FindOptions{
		Path:     os.Getenv(stack.EnvWeed),
		Cache:    stack.CacheDir(os.Getuid(), os.Getenv),
		Progress: func(message string) { fmt.Fprintln(os.Stderr, message) },
	})
	if err != nil {
		return err
	}
	_, err = fmt.Println(weed)
	return err
}
