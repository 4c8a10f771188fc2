package doctor

import (
	"context"
	"os"
	"os/exec"
)

// Mount looks for the other binary.
func Mount(path string, err error) Check {
	return func(context.Context) Finding {
		const name = "holdfast-mount"
		if err != nil {
			return missing(name, err.Error(), "run: make build, or install both binaries into one folder")
		}
		return found(name, path)
	}
}

// Sudo looks for the way to start the keeper, the one process that needs root.
func Sudo(context.Context) Finding {
	const name = "root"
	if os.Getuid() == 0 {
		return found(name, "you are root; only the keeper stays so")
	}
	path, err := exec.LookPath("sudo")
	if err != nil {
		return missing(name, "you are not root and there is no sudo to start the keeper with",
			"install sudo and allow it to you, or run holdfast as root")
	}
	return found(name, "the keeper alone is started with "+path)
}
