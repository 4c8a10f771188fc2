package size

import "testing"

func TestParse(t *testing.T) {
	for s, want := range map[string]Bytes{
		"1":      1,
		"1Ki":    1024,
		"1Gi":    1 << 30,
		"1.5Gi":  3 << 29,
		"10GiB":  10 << 30,
		"500M":   500e6,
		"2k":     2000,
		"2K":     2000,
		"3T":     3e12,
		"4Ti":    4 << 40,
		" 20Mi ": 20 << 20,
		"7P":     7e15,
	} {
		if got, err := Parse(s); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "Gi", "1Xi", "-1Gi", "0", "0Gi", "1e3", "1 Gi", "999999Pi", "1..5Gi", "0.1", "ten", "1gi", "0x10", "Inf", "NaN", "1.5.5M"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", s, got)
		}
	}
}

func TestString(t *testing.T) {
	for b, want := range map[Bytes]string{
		0: "0", 1023: "1023", 1024: "1Ki", 1 << 30: "1Gi", 3 << 29: "1.5Gi", 5 << 40: "5Ti", 1e9: "953.7Mi",
	} {
		if got := b.String(); got != want {
			t.Errorf("%d is written %q, want %q", int64(b), got, want)
		}
	}
}
