package state

import (
	"fmt"
	"os"
	"path/filepath"
)

// Dir is the absolute path of a state folder.
type Dir string

// The environment variable and the folders that Find looks at.
const (
	EnvDir  = "HOLDFAST_STATE"
	rootDir = "/var/lib/holdfast"
)

// Find returns the state folder: the one given, else $HOLDFAST_STATE, else
// /var/lib/holdfast for root and $XDG_DATA_HOME/holdfast (normally
// ~/.local/share/holdfast) for everybody else.
func Find(given string, uid int, getenv func(string) string) (Dir, error) {
	for _, dir := range []string{given, getenv(EnvDir)} {
		if dir == "" {
			continue
		}
		abs, err := filepath.Abs(dir)
		if err != nil {
			return "", fmt.Errorf("state folder %s: %w", dir, err)
		}
		return resolve(abs), nil
	}
	if uid == 0 {
		return resolve(rootDir), nil
	}
	// The XDG specification has relative paths ignored.
	if data := getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return resolve(filepath.Join(data, "holdfast")), nil
	}
	if home := getenv("HOME"); filepath.IsAbs(home) {
		return resolve(filepath.Join(home, ".local", "share", "holdfast")), nil
	}
	return "", fmt.Errorf("no state folder: neither $%s nor $HOME is set", EnvDir)
}

// resolve follows the links on the way to path, as far as it exists: the keeper
// walks over none.
func resolve(path string) Dir {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return Dir(real)
	}
	parent := filepath.Dir(path)
	if parent == path {
		return Dir(path)
	}
	return Dir(filepath.Join(string(resolve(parent)), filepath.Base(path)))
}

func (d Dir) join(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// The files and folders of a state.
func (d Dir) ConfigFile() string { return d.join("config.json") }
func (d Dir) AdminKeys() string  { return d.join("admin.json") }
func (d Dir) Cluster() string    { return d.join("cluster") }

// PKI holds the certificates of the cluster and of those who speak to it.
func (d Dir) PKI() string            { return d.join("pki") }
func (d Dir) Mounts() string         { return d.join("mounts") }
func (d Dir) Staging() string        { return d.join("staging") }
func (d Dir) Mounter() string        { return d.join("mounter") }
func (d Dir) Run() string            { return d.join("run") }
func (d Dir) Logs() string           { return d.join("logs") }
func (d Dir) Bin() string            { return d.join("bin") }
func (d Dir) Log(name string) string { return d.join("logs", name+".log") }

// RunFile is a file that tells what runs now.
func (d Dir) RunFile(name string) string { return d.join("run", name) }

// ControllerSocket and NodeSocket are where the CSI services listen.
func (d Dir) ControllerSocket() string { return d.join("run", "csi-controller.sock") }
func (d Dir) NodeSocket() string       { return d.join("run", "csi-node.sock") }

// maxSocketPath is sizeof(sun_path) less its final zero.
const maxSocketPath = 107

// longestSocket is the longest name of a socket below run/. The keeper and the
// cluster put theirs there too.
const longestSocket = "csi-controller.sock"

// CheckSockets says whether the paths of the sockets are short enough for the
// kernel.
func (d Dir) CheckSockets() error {
	if n := len(d.join("run", longestSocket)); n > maxSocketPath {
		return fmt.Errorf("%s is %d bytes too long: the path of a Unix socket below it would have more than %d", d, n-maxSocketPath, maxSocketPath)
	}
	return nil
}

// Exists reports whether there is such a state: a folder in which something was
// started once.
func (d Dir) Exists() bool {
	info, err := os.Stat(d.Run())
	return err == nil && info.IsDir()
}
