package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// restartDelay is between the end of a service and its next start, as a
// service manager has it.
const restartDelay = time.Second

// service keeps one long-running program alive, until it is stopped.
type service struct {
	name     string
	log      string // path; appended to
	command  []string
	children *children

	mu struct {
		sync.Mutex
		wanted  bool
		process *os.Process
		ended   chan struct{} // closed when the loop of the current start is over
	}
}

// start begins to keep it alive. Of a started one it changes nothing.
func (s *service) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.wanted {
		return nil
	}
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	status, err := s.launchLocked(log)
	if err != nil {
		_ = log.Close()
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	s.mu.wanted, s.mu.ended = true, make(chan struct{})
	go s.keep(log, status, s.mu.ended)
	return nil
}

func (s *service) launchLocked(log *os.File) (<-chan syscall.WaitStatus, error) {
	cmd := exec.Command(s.command[0], s.command[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	ended, err := s.children.start(cmd)
	if err == nil {
		s.mu.process = cmd.Process
	}
	return ended, err
}

func (s *service) keep(log *os.File, status <-chan syscall.WaitStatus, over chan<- struct{}) {
	defer close(over)
	defer log.Close()
	for {
		end := <-status
		s.mu.Lock()
		wanted := s.mu.wanted
		s.mu.Unlock()
		if !wanted {
			return
		}
		_, _ = fmt.Fprintf(log, "holdfast-e2e: %s %s; it is started again\n", s.name, describe(end))
		time.Sleep(restartDelay)

		s.mu.Lock()
		if !s.mu.wanted {
			s.mu.Unlock()
			return
		}
		next, err := s.launchLocked(log)
		if err != nil {
			s.mu.wanted = false
			_, _ = fmt.Fprintf(log, "holdfast-e2e: %s cannot be started again: %v\n", s.name, err)
		}
		s.mu.Unlock()
		if err != nil {
			return
		}
		status = next
	}
}

// stop ends it by that signal and waits for its end.
func (s *service) stop(sig syscall.Signal, wait time.Duration) error {
	s.mu.Lock()
	if !s.mu.wanted {
		s.mu.Unlock()
		return nil
	}
	s.mu.wanted = false
	err := s.mu.process.Signal(sig)
	over := s.mu.ended
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	select {
	case <-over:
		return nil
	case <-time.After(wait):
		return fmt.Errorf("%s still runs %v after %v", s.name, wait, sig)
	}
}
