package doctor

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"strings"
)

// FuseDevice is where the kernel offers FUSE.
const FuseDevice = "/dev/fuse"

// Fuse looks for the device and for the kernel's part behind it.
func Fuse(context.Context) Finding {
	const name = "FUSE"
	info, err := os.Stat(FuseDevice)
	if err != nil {
		return missing(name, "there is no "+FuseDevice,
			"run: sudo modprobe fuse (in a container: start it with --device "+FuseDevice+")")
	}
	if info.Mode()&fs.ModeCharDevice == 0 {
		return missing(name, FuseDevice+" is no device", "remove it and run: sudo modprobe fuse")
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err == nil && !hasFilesystem(string(filesystems), "fuse") {
		return missing(name, "the kernel does not list fuse in /proc/filesystems", "run: sudo modprobe fuse")
	}
	return found(name, fmt.Sprintf("%s (%s)", FuseDevice, info.Mode()))
}

func hasFilesystem(list, name string) bool {
	for line := range strings.Lines(list) {
		fields := strings.Fields(line)
		if len(fields) > 0 && fields[len(fields)-1] == name {
			return true
		}
	}
	return false
}
