package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// node is a running node as the cluster's init has it.
type node struct {
	number   int
	pid      int // of its init, in the cluster's PID namespace
	commands net.Conn
	ended    <-chan syscall.WaitStatus
}

// command sends a line to the node's init and waits for its answer, which is
// "ok" or what went wrong. The slot's lock keeps it to one at a time.
func (nd *node) command(line string, wait time.Duration) error {
	if err := nd.commands.SetDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(nd.commands, line); err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	answer, err := bufio.NewReader(nd.commands).ReadString('\n')
	if err != nil {
		return fmt.Errorf("%s: no answer from the node's init: %w", line, err)
	}
	if answer = strings.TrimSpace(answer); answer != "ok" {
		// A message of several lines comes quoted.
		return errors.New(strings.ReplaceAll(answer, `\n`, "\n"))
	}
	return nil
}

// kill ends the node's init, and the kernel everything else of its PID
// namespace before the init counts as ended.
func (nd *node) kill() {
	_ = syscall.Kill(nd.pid, syscall.SIGKILL)
	<-nd.ended
	_ = nd.commands.Close()
}

// socketPair is a line to a node: ours, and the file that the node inherits.
func socketPair() (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	own := os.NewFile(uintptr(fds[0]), "node")
	defer own.Close()
	theirs := os.NewFile(uintptr(fds[1]), "node")
	conn, err := net.FileConn(own)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return conn, theirs, nil
}
