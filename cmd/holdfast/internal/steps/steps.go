package steps

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Show is the view of one operation. On a terminal it is a bar that goes away
// at the end; elsewhere each new step is a line.
type Show struct {
	out  io.Writer
	bar  *progressbar.ProgressBar
	last string
}

// To returns a view that writes to w, normally standard error.
func To(w io.Writer) *Show {
	s := &Show{out: w}
	if IsTerminal(w) {
		s.bar = progressbar.NewOptions(-1,
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetWidth(24),
			progressbar.OptionSetElapsedTime(true),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionSpinnerType(14),
			progressbar.OptionThrottle(60*time.Millisecond),
			progressbar.OptionClearOnFinish(),
		)
	}
	return s
}

// At says that step number done of total is under way; total 0 means that
// nobody knows how many there are.
func (s *Show) At(done, total int, text string) {
	if s.bar == nil {
		if text != s.last && text != "" {
			s.last = text
			_, _ = fmt.Fprintln(s.out, text)
		}
		return
	}
	if total > 0 && s.bar.GetMax() != total {
		s.bar.ChangeMax(total)
	}
	if text != s.last {
		s.last = text
		s.bar.Describe(text)
	}
	if total > 0 {
		// The last step is under way, not over: a full bar would end.
		_ = s.bar.Set(min(done, total-1))
	} else {
		_ = s.bar.Add(1)
	}
}

// Say writes a line that stays.
func (s *Show) Say(format string, args ...any) {
	if s.bar != nil {
		_ = s.bar.Clear()
	}
	_, _ = fmt.Fprintf(s.out, format+"\n", args...)
}

// End takes the bar away.
func (s *Show) End() {
	if s.bar != nil {
		_ = s.bar.Finish()
		_ = s.bar.Clear()
	}
}

// IsTerminal reports whether v is an open terminal.
func IsTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
