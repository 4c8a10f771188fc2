package csisanity

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// step is one thing done to a folder. What it returns is compared.
type step struct {
	name string
	do   func(dir string) (any, error)
}

// The same steps are done in a mounted volume and in a folder of the local disk.
// Both must give the same answers and the same errors, and look the same in the
// end: at once, and after a remount.
func TestLikeALocalDisk(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t))
	mounted := filepath.Join(v.mount(t), "x")
	local := filepath.Join(t.TempDir(), "x")
	for _, dir := range []string{mounted, local} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range posixSteps {
		want, wantErr := s.do(local)
		got, gotErr := s.do(mounted)
		if errno(gotErr) != errno(wantErr) || (gotErr == nil) != (wantErr == nil) {
			t.Errorf("%s: error %v, on a local disk %v", s.name, gotErr, wantErr)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, on a local disk %v", s.name, got, want)
		}
	}
	want := describe(t, local)
	diffLines(t, "after the steps", describe(t, mounted), want)
	v.remount(t, filepath.Dir(mounted))
	diffLines(t, "after a remount", describe(t, mounted), want)
}

// errno is the kernel's number behind an error; 0 for none, and for what the
// standard library says itself.
func errno(err error) syscall.Errno {
	e, _ := errors.AsType[syscall.Errno](err)
	return e
}

var posixSteps = []step{
	{"create and read", func(d string) (any, error) {
		if err := os.WriteFile(d+"/file", []byte("hello"), 0o640); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(d + "/file")
		return string(b), err
	}},
	{"create exclusively what is there", func(d string) (any, error) {
		_, err := os.OpenFile(d+"/file", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		return nil, err
	}},
	{"open what is missing", func(d string) (any, error) { _, err := os.Open(d + "/missing"); return nil, err }},
	{"append", func(d string) (any, error) {
		f, err := os.OpenFile(d+"/file", os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString(" world")
		return nil, errors.Join(err, f.Close())
	}},
	{"write in the middle", func(d string) (any, error) {
		f, err := os.OpenFile(d+"/file", os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteAt([]byte("HELL"), 0)
		b, readErr := io.ReadAll(f)
		return string(b), errors.Join(err, readErr, f.Close())
	}},
	{"write far behind the end", func(d string) (any, error) {
		f, err := os.Create(d + "/sparse")
		if err != nil {
			return nil, err
		}
		_, err = f.WriteAt([]byte("end"), 3<<20)
		return nil, errors.Join(err, f.Close())
	}},
	{"shorten", func(d string) (any, error) { return nil, os.Truncate(d+"/file", 7) }},
	{"lengthen", func(d string) (any, error) { return nil, os.Truncate(d+"/file", 20) }},
	{"a large file in pieces", func(d string) (any, error) {
		f, err := os.Create(d + "/large")
		if err != nil {
			return nil, err
		}
		piece := make([]byte, 100_000)
		for i := range 120 {
			for j := range piece {
				piece[j] = byte(i + j*7)
			}
			if _, err := f.Write(piece); err != nil {
				return nil, errors.Join(err, f.Close())
			}
		}
		return nil, errors.Join(f.Sync(), f.Close())
	}},
	{"truncate on opening", func(d string) (any, error) {
		if err := os.WriteFile(d+"/again", []byte("a long first content"), 0o600); err != nil {
			return nil, err
		}
		return nil, os.WriteFile(d+"/again", []byte("short"), 0o600)
	}},
	{"folders", func(d string) (any, error) { return nil, os.MkdirAll(d+"/a/b/c", 0o750) }},
	{"a folder that is there", func(d string) (any, error) { return nil, os.Mkdir(d+"/a", 0o750) }},
	{"remove a folder that is not empty", func(d string) (any, error) { return nil, syscall.Rmdir(d + "/a") }},
	{"unlink a folder", func(d string) (any, error) { return nil, syscall.Unlink(d + "/a") }},
	{"rmdir a file", func(d string) (any, error) { return nil, syscall.Rmdir(d + "/file") }},
	{"a file below a file", func(d string) (any, error) { return nil, os.WriteFile(d+"/file/below", nil, 0o600) }},
	{"rename", func(d string) (any, error) { return nil, os.Rename(d+"/again", d+"/a/b/renamed") }},
	{"rename over a file", func(d string) (any, error) {
		if err := os.WriteFile(d+"/new", []byte("new"), 0o600); err != nil {
			return nil, err
		}
		return nil, os.Rename(d+"/new", d+"/a/b/renamed")
	}},
	{"rename a folder", func(d string) (any, error) { return nil, os.Rename(d+"/a/b", d+"/moved") }},
	{"rename a folder over one that is not empty", func(d string) (any, error) {
		if err := os.Mkdir(d+"/other", 0o755); err != nil {
			return nil, err
		}
		return nil, syscall.Rename(d+"/other", d+"/moved")
	}},
	{"rename a folder into itself", func(d string) (any, error) { return nil, syscall.Rename(d+"/moved", d+"/moved/c/x") }},
	{"rename what is missing", func(d string) (any, error) { return nil, os.Rename(d+"/missing", d+"/y") }},
	{"symbolic link", func(d string) (any, error) {
		if err := os.Symlink("moved/renamed", d+"/link"); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(d + "/link")
		return string(b), err
	}},
	{"dangling link", func(d string) (any, error) { return nil, os.Symlink("nowhere", d+"/dangling") }},
	{"hard link", func(d string) (any, error) {
		if err := os.Link(d+"/file", d+"/hard"); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(d+"/hard", os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString("through the link")
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, err
		}
		b, err := os.ReadFile(d + "/file")
		return string(b), err
	}},
	{"hard link of a folder", func(d string) (any, error) { return nil, os.Link(d+"/moved", d+"/no") }},
	{"hard link over a file", func(d string) (any, error) { return nil, os.Link(d+"/file", d+"/large") }},
	{"chmod", func(d string) (any, error) { return nil, os.Chmod(d+"/large", 0o604) }},
	{"chmod of a folder", func(d string) (any, error) { return nil, os.Chmod(d+"/other", 0o711) }},
	{"mtime", func(d string) (any, error) {
		at := time.Date(2001, 2, 3, 4, 5, 6, 789, time.UTC)
		return nil, os.Chtimes(d+"/large", at, at)
	}},
	{"extended attributes", func(d string) (any, error) {
		for _, name := range []string{"user.color", "user.shape"} {
			if err := unix.Setxattr(d+"/large", name, []byte(name+"'s value"), 0); err != nil {
				return nil, err
			}
		}
		if err := unix.Removexattr(d+"/large", "user.shape"); err != nil {
			return nil, err
		}
		value := make([]byte, 100)
		n, err := unix.Getxattr(d+"/large", "user.color", value)
		return string(value[:max(n, 0)]), err
	}},
	{"an attribute that is missing", func(d string) (any, error) {
		_, err := unix.Getxattr(d+"/large", "user.missing", make([]byte, 10))
		return nil, err
	}},
	{"read and write after the unlink", func(d string) (any, error) {
		f, err := os.Create(d + "/unlinked")
		if err != nil {
			return nil, err
		}
		_, err = f.WriteString("still ")
		err = errors.Join(err, os.Remove(d+"/unlinked"))
		_, writeErr := f.WriteString("here")
		b := make([]byte, 10)
		_, readErr := f.ReadAt(b, 0)
		return string(b), errors.Join(err, writeErr, readErr, f.Close())
	}},
	{"names of many kinds", func(d string) (any, error) {
		if err := os.Mkdir(d+"/names", 0o755); err != nil {
			return nil, err
		}
		for _, name := range []string{"with space", "ünïcödé", "-dash", ".hidden", "a+b&c=d?e#f%20", "quo'te\"", strings.Repeat("n", 255)} {
			if err := os.WriteFile(filepath.Join(d, "names", name), []byte(name), 0o600); err != nil {
				return name, err
			}
		}
		return nil, nil
	}},
	{"a name that is too long", func(d string) (any, error) {
		return nil, os.WriteFile(d+"/"+strings.Repeat("n", 256), nil, 0o600)
	}},
	{"many files in a folder", func(d string) (any, error) {
		if err := os.Mkdir(d+"/many", 0o755); err != nil {
			return nil, err
		}
		for i := range 1500 {
			if err := os.WriteFile(fmt.Sprintf("%s/many/%04d", d, i), nil, 0o600); err != nil {
				return i, err
			}
		}
		entries, err := os.ReadDir(d + "/many")
		return len(entries), err
	}},
	{"remove half of them", func(d string) (any, error) {
		for i := 0; i < 1500; i += 2 {
			if err := os.Remove(fmt.Sprintf("%s/many/%04d", d, i)); err != nil {
				return i, err
			}
		}
		entries, err := os.ReadDir(d + "/many")
		return len(entries), err
	}},
	{"remove a tree", func(d string) (any, error) { return nil, os.RemoveAll(d + "/many") }},
	{"statfs", func(d string) (any, error) {
		var st unix.Statfs_t
		err := unix.Statfs(d, &st)
		return st.Blocks > 0 && st.Bavail > 0, err
	}},
}

// describe lists everything below dir with what stat tells of it.
func describe(t *testing.T, dir string) []string {
	t.Helper()
	var lines []string
	err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %s uid=%d gid=%d", rel, info.Mode(), st.Uid, st.Gid)
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" links=%d size=%d %s", st.Nlink, info.Size(), checksum(b))
			if rel == "large" {
				line += " " + info.ModTime().UTC().String()
				names := make([]byte, 1000)
				n, err := unix.Listxattr(path, names)
				if err != nil {
					return err
				}
				user := slices.DeleteFunc(strings.Split(string(names[:n]), "\x00"), func(s string) bool { return !strings.HasPrefix(s, "user.") })
				line += fmt.Sprint(" ", user)
			}
		case info.Mode()&os.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line += " -> " + target
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Errorf("walk %s: %v", dir, err)
	}
	return lines
}

// diffLines reports what one list has and the other has not.
func diffLines(t *testing.T, when string, got, want []string) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("%s only in the mount: %s", when, line)
		}
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s only on the local disk: %s", when, line)
		}
	}
}
