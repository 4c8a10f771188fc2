package session

import "context"

// AskAgain is RESEND, by itself.
func (s *Session) AskAgain() error { return s.askAgain() }

// SetFault has f called at the steps of a request's way.
func (s *Session) SetFault(f func(point string, opcode uint32)) { s.fault = f }

// Leave takes a large slot and leaves a request of n bytes in it.
func (p *Slots) Leave(name string, n int) error {
	sl, err := p.takeLarge(context.Background(), keyOf(name))
	if err != nil {
		return err
	}
	sl.setLength(n)
	p.leave(sl)
	return nil
}

// Left returns how many requests are left of a session, Idle how many large slots
// are taken for mapped.
func (p *Slots) Left(name string) int { return len(p.mu.left[keyOf(name)]) }
func (p *Slots) Idle() int            { return len(p.mu.idle[large]) }
