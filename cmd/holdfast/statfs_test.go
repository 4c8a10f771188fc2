package main

import (
	"encoding/json"
	"syscall"
	"testing"
)

// The child says what the kernel says: figures, or the error's number.
func TestStatfs(t *testing.T) {
	ask := func(path string) (m measured) {
		out, _, err := call(t, "statfs", path)
		if err != nil || json.Unmarshal([]byte(out), &m) != nil {
			t.Fatalf("statfs %s: %q, %v", path, out, err)
		}
		return m
	}
	if m := ask(t.TempDir()); m.Usage.Total <= 0 || m.Errno != 0 {
		t.Errorf("a folder: %+v", m)
	}
	if m := ask("/nowhere/at/all"); m.Errno != syscall.ENOENT {
		t.Errorf("no folder: %+v", m)
	}
}
