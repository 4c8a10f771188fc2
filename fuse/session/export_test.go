package session

// AskAgain is RESEND, by itself.
func (s *Session) AskAgain() error { return s.askAgain() }

// SetFault has f called at the steps of a request's way.
func (s *Session) SetFault(f func(point string, opcode uint32)) { s.fault = f }
