package supervise

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestTailKeepsTheLastLines(t *testing.T) {
	o := newOutput("")
	if o.tail() != "" {
		t.Errorf("tail of nothing: %q", o.tail())
	}
	for i := range 3 * tailLines {
		say(t, o, "line %d\n\n", i)
	}
	say(t, o, "half a ")
	say(t, o, "line")
	got := strings.Split(o.tail(), "\n")[1:]
	if len(got) != tailLines+1 || got[0] != fmt.Sprintf("  line %d", 2*tailLines) || got[tailLines] != "  half a line" {
		t.Errorf("%d lines: %q", len(got), got)
	}
	o.reset()
	say(t, o, "%s", strings.Repeat("x", 100*tailWidth)+"\nend\n")
	if tail := o.tail(); len(tail) > tailWidth+100 || !strings.HasSuffix(tail, "end") {
		t.Errorf("%d bytes of tail: %q", len(tail), tail)
	}
}

func TestTailKeepsTheReasonOfAPanic(t *testing.T) {
	for _, cry := range []string{"panic: no space left", "fatal error: all goroutines are asleep", "F1122 17:09:42.401004 filer.go:1 cannot open"} {
		o := newOutput("")
		say(t, o, "before\n%s\n\ngoroutine 1 [running]:\n%s", cry, strings.Repeat("main.f()\n", 100))
		if tail := o.tail(); !strings.Contains(tail, "before\n  "+cry) || strings.Count(tail, "\n") > cryLines+1 {
			t.Errorf("%q", tail)
		}
		o.reset()
		say(t, o, "%s", strings.Repeat("next life\n", 100))
		if tail := o.tail(); strings.Count(tail, "\n") != tailLines {
			t.Errorf("%q", tail)
		}
	}
}

func TestBackoff(t *testing.T) {
	b := Backoff{}.withDefaults()
	for n, want := range map[int]time.Duration{
		1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 5: 3200 * time.Millisecond, 6: 5 * time.Second, 1000: 5 * time.Second,
	} {
		if got := b.delay(n); got != want {
			t.Errorf("death %d: %s, want %s", n, got, want)
		}
	}
	if got := (Backoff{Min: -1}).withDefaults().delay(7); got != 0 {
		t.Errorf("at once: %s", got)
	}
}

// say writes as a child does.
func say(t *testing.T, o *output, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(o, format, args...); err != nil {
		t.Fatal(err)
	}
}
