package size

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Bytes is an amount of bytes. It is a pflag.Value, so that a flag of this type
// is checked when it is read.
type Bytes int64

// units by suffix, the longest first. Ki, Mi, Gi, Ti are powers of 1024 and k,
// M, G, T of 1000, as in Kubernetes; K is taken for k because everybody types it.
var units = []struct {
	suffix string
	factor float64
}{
	{"Ki", 1 << 10},
	{"Mi", 1 << 20},
	{"Gi", 1 << 30},
	{"Ti", 1 << 40},
	{"Pi", 1 << 50},
	{"k", 1e3},
	{"K", 1e3},
	{"M", 1e6},
	{"G", 1e9},
	{"T", 1e12},
	{"P", 1e15},
	{"", 1},
}

// Parse reads "1Gi", "500M", "1.5Ti" or a plain number of bytes. A trailing B
// ("10GiB") is allowed.
func Parse(s string) (Bytes, error) {
	number := strings.TrimSuffix(strings.TrimSpace(s), "B")
	for _, u := range units {
		digits, found := strings.CutSuffix(number, u.suffix)
		if !found {
			continue
		}
		return scale(s, digits, u.factor)
	}
	return 0, malformed(s)
}

// scale turns digits times factor into bytes. Whole numbers take the exact way.
func scale(s, digits string, factor float64) (Bytes, error) {
	if digits == "" || strings.Trim(digits, "0123456789.") != "" {
		return 0, malformed(s)
	}
	if n, err := strconv.ParseInt(digits, 10, 64); err == nil {
		if float64(n) >= math.MaxInt64/factor {
			return 0, fmt.Errorf("size %q is too large", s)
		}
		if n == 0 {
			return 0, fmt.Errorf("size %q: must be more than zero", s)
		}
		return Bytes(n * int64(factor)), nil
	}
	f, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, malformed(s)
	}
	bytes := f * factor
	switch {
	case bytes >= math.MaxInt64:
		return 0, fmt.Errorf("size %q is too large", s)
	case bytes < 1:
		return 0, fmt.Errorf("size %q: must be at least one byte", s)
	}
	return Bytes(bytes), nil
}

func malformed(s string) error {
	return fmt.Errorf("size %q: write a number with a unit, such as 500Mi, 1Gi or 2T (Ki Mi Gi Ti are powers of 1024; k M G T of 1000)", s)
}

// String writes the amount with the largest binary unit that divides it, or
// with one digit after the point.
func (b Bytes) String() string {
	if b < 1<<10 {
		return strconv.FormatInt(int64(b), 10)
	}
	unit, suffix := int64(1<<10), "Ki"
	for _, u := range []struct {
		factor int64
		suffix string
	}{{1 << 20, "Mi"}, {1 << 30, "Gi"}, {1 << 40, "Ti"}, {1 << 50, "Pi"}} {
		if int64(b) >= u.factor {
			unit, suffix = u.factor, u.suffix
		}
	}
	if int64(b)%unit == 0 {
		return strconv.FormatInt(int64(b)/unit, 10) + suffix
	}
	return strconv.FormatFloat(float64(b)/float64(unit), 'f', 1, 64) + suffix
}

// Set implements pflag.Value.
func (b *Bytes) Set(s string) error {
	n, err := Parse(s)
	if err != nil {
		return err
	}
	*b = n
	return nil
}

// Type implements pflag.Value; it is the word that help shows for the value.
func (b *Bytes) Type() string { return "size" }
