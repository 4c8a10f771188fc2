package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	mib  = 1 << 20
	page = 4096
)

// material is what is written: bytes that do not compress, no page like another,
// so that each page that is read says whether it is the right one.
type material struct {
	base     []byte
	sizeMiB  int
	tree     string
	treeText string
	tar      []byte
}

func newMaterial(ctx context.Context, o options) (*material, error) {
	m := &material{base: make([]byte, mib), sizeMiB: o.sizeMiB, tree: o.tree}
	_, _ = rand.NewChaCha8([32]byte{'b', 'e', 'n', 'c', 'h'}).Read(m.base) // never fails
	if !slices.ContainsFunc(chosen(o.rows), func(r row) bool { return r.name == "untar" }) {
		return m, nil
	}
	if m.tree == "" {
		root, err := output(exec.CommandContext(ctx, "go", "env", "GOROOT"))
		if err != nil {
			return nil, err
		}
		m.tree = filepath.Join(strings.TrimSpace(root), "src")
	}
	out, err := output(exec.CommandContext(ctx, "tar", "cf", "-", "-C", m.tree, "."))
	if err != nil {
		return nil, err
	}
	m.tar = []byte(out)
	entries := 0
	err = filepath.WalkDir(m.tree, func(string, fs.DirEntry, error) error { entries++; return nil })
	m.treeText = fmt.Sprintf("%d entries, %d MB", entries, len(m.tar)/1e6)
	return m, err
}

// fill makes the MiB number n of file.
func (m *material) fill(b []byte, file, n int) {
	copy(b, m.base)
	for at := 0; at < len(b); at += page {
		head(b[at:], file, n*(mib/page)+at/page)
	}
}

func head(b []byte, file, page int) {
	binary.LittleEndian.PutUint64(b, uint64(file)<<32|0xbe9c)
	binary.LittleEndian.PutUint64(b[8:], uint64(page))
}

// same says whether b is page number n of file.
func (m *material) same(b []byte, file, n int) error {
	var want [16]byte
	head(want[:], file, n)
	base := m.base[n%(mib/page)*page:]
	if !bytes.Equal(b[:16], want[:]) || !bytes.Equal(b[16:], base[16:page]) {
		return fmt.Errorf("page %d of file %d is not what was written: it begins with %x", n, file, b[:16])
	}
	return nil
}

// sameTree compares a copy of the source tree with it.
func (m *material) sameTree(ctx context.Context, copied string) error {
	return filepath.WalkDir(m.tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || ctx.Err() != nil {
			return err
		}
		at, err := filepath.Rel(m.tree, path)
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(copied, at))
		if err == nil && !bytes.Equal(got, want) {
			err = fmt.Errorf("%s: %d bytes that differ from the %d of the tree", at, len(got), len(want))
		}
		return err
	})
}
