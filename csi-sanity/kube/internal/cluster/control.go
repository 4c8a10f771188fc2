package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// commandAddress is on the loopback of the cluster's network namespace, which
// only root of the machine can enter, and no pod is in.
const commandAddress = "127.0.0.1:6999"

// serve answers the commands of Ask.
func (c *controller) serve() error {
	listener, err := net.Listen("tcp", commandAddress)
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /nodes/{node}/{command}", func(w http.ResponseWriter, r *http.Request) {
		if err := c.do(r.PathValue("node"), r.PathValue("command")); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	return server.Serve(listener)
}

func (c *controller) do(number, command string) error {
	n, err := strconv.Atoi(number)
	if err != nil {
		return fmt.Errorf("node %q: a number is wanted", number)
	}
	switch command {
	case "start":
		return c.startNode(n)
	case "stop":
		return c.stopNode(n)
	case "stop-kubelet", "start-kubelet", "restart-kubelet":
		return c.kubeletCommand(n, strings.TrimSuffix(command, "-kubelet"))
	default:
		return fmt.Errorf("unknown command %q: allowed are stop, start, stop-kubelet, start-kubelet and restart-kubelet", command)
	}
}

// Ask has the cluster's init do something to a node. It works in the cluster's
// network namespace only: see Enter.
func Ask(ctx context.Context, node int, command string) error {
	ctx, cancel := context.WithTimeout(ctx, imageWait+startWait)
	defer cancel()
	url := fmt.Sprintf("http://%s/nodes/%d/%s", commandAddress, node, command)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the cluster's init to %s node %d: %w", command, node, err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(text)))
	}
	return nil
}
