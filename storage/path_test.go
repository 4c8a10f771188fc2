package storage

import (
	"strings"
	"testing"
)

func TestCheckFolder(t *testing.T) {
	for _, p := range []Path{"", "a", "a/b", "team-1/data_2/x.y=z@w+", Path(strings.Repeat("a/", 255) + "aa")} {
		if err := p.CheckFolder(); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	for _, p := range []Path{"/", "/a", "a/", "a//b", ".", "..", "a/../b", "a/./b", "a b", "a*", "a?b", "$x", "ä", "a\x00", "a\xff", ".uploads", "a/x.versions", Path(strings.Repeat("a/", 256) + "a")} {
		if err := p.CheckFolder(); !Is(err, Invalid) {
			t.Errorf("%q: %v, want Invalid", p, err)
		}
	}
}
