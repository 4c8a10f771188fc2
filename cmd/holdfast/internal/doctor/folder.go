package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/driver/size"
)

// The least space that anything works with, and what a fair start takes.
const (
	leastSpace = 1 << 30 // volume servers write nothing below it
	fairSpace  = 5 << 30
)

// Folder looks at whether the state folder can be used by all who must.
func Folder(dir state.Dir) Check {
	return func(context.Context) Finding {
		const name = "state folder"
		if err := dir.CheckSockets(); err != nil {
			return missing(name, err.Error(), "set $"+state.EnvDir+" to a folder with a shorter path")
		}
		near, err := nearest(string(dir))
		if err != nil {
			return missing(name, err.Error(), "set $"+state.EnvDir+" to a folder that you may write")
		}
		if err := unix.Access(near, unix.W_OK|unix.X_OK); err != nil {
			return missing(name, fmt.Sprintf("%s may not be written: %v", near, err), "set $"+state.EnvDir+" to a folder that you may write")
		}
		if os.Getuid() == 0 {
			if shut := state.Closed(near); shut != "" {
				return missing(name, fmt.Sprintf("%s lets no other user pass, and the services are others", shut),
					fmt.Sprintf("run: chmod o+x %s, or set $%s to another folder", shut, state.EnvDir))
			}
		}
		return found(name, string(dir))
	}
}

// Disk looks at the space below the state folder.
func Disk(dir state.Dir) Check {
	return func(context.Context) Finding { return Space(dir) }
}

// Space is the finding of Disk.
func Space(dir state.Dir) Finding {
	const name = "disk"
	near, err := nearest(string(dir))
	var st unix.Statfs_t
	if err == nil {
		err = unix.Statfs(near, &st)
	}
	if err != nil {
		return missing(name, err.Error(), "set $"+state.EnvDir+" to another folder")
	}
	free := int64(st.Bavail) * st.Bsize
	detail := fmt.Sprintf("%s free at %s", size.Bytes(free), near)
	mend := fmt.Sprintf("make room, or set $%s to a folder on a larger disk", state.EnvDir)
	switch {
	case free < leastSpace:
		return missing(name, detail, mend)
	case free < fairSpace:
		return Finding{Name: name, Detail: detail, Mend: mend}
	}
	return found(name, detail)
}

// nearest is path, or the deepest folder on the way to it that exists.
func nearest(path string) (string, error) {
	for {
		info, err := os.Stat(path)
		switch {
		case err == nil && !info.IsDir():
			return "", fmt.Errorf("%s is not a folder", path)
		case err == nil:
			return path, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
		path = filepath.Dir(path)
	}
}
