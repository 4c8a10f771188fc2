package stack

import (
	"slices"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/process"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

// step says what is under way.
func (s *supervisor) step(text string) {
	s.mu.Lock()
	st := &s.mu.status
	st.Step++
	st.Steps = max(st.Steps, st.Step)
	st.Doing = text
	step, steps := st.Step, st.Steps
	s.mu.Unlock()
	s.log.Info("step", "op", text)
	s.opts.report(step, steps, text)
	_ = s.save() // the next one tells more
}

// warn adds what the caller shall hear although all goes on.
func (s *supervisor) warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.status.Warnings = append(s.mu.status.Warnings, text)
}

// phase enters a phase and tells it.
func (s *supervisor) phase(p Phase, err error) {
	s.mu.Lock()
	s.mu.status.Phase = p
	if err != nil {
		s.mu.status.Error = err.Error()
	}
	if p == Ready {
		s.mu.status.Doing = ""
	}
	s.mu.Unlock()
	if err := s.save(); err != nil {
		s.log.Warn("status cannot be written", "err", err)
	}
}

// status returns what is known now.
func (s *supervisor) status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.mu.status
	st.Warnings = slices.Clone(st.Warnings)
	return st
}

// save writes the status with the processes as they are, if it has changed.
func (s *supervisor) save() error {
	s.saving.Lock()
	defer s.saving.Unlock()
	st := s.status()
	st.Processes = s.components()
	return s.file.write(st)
}

// components are all processes, as they are now.
func (s *supervisor) components() []Component {
	var all []supervise.Status
	if s.cluster != nil {
		all = s.cluster.Status()
	}
	all = append(all, s.services.Status()...)
	components := []Component{}
	for _, p := range all {
		components = append(components, component(p))
	}
	for _, name := range []string{keeperName, mounterName} {
		id, ok := noted(s.opts.Dir, name)
		s.mu.Lock()
		ready, restarts := s.mu.answers[name], s.mu.restarts[name]
		s.mu.Unlock()
		components = append(components, Component{Name: name, ID: id, Running: ok, Ready: ok && ready, Restarts: restarts})
	}
	return components
}

// component is a supervised process. One that has died and is not reaped yet does not
// run, whatever was last known of it.
func component(p supervise.Status) Component {
	c := Component{Name: p.Name, Restarts: p.Restarts, LastExit: p.LastExit}
	if id, err := process.Of(p.PID); p.PID != 0 && err == nil {
		c.ID, c.Running, c.Ready = id, p.Running, p.Ready
	}
	return c
}

// count notes that one of the detached processes had to be started again.
func (s *supervisor) count(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.restarts[name]++
}
