package csisanity

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// This file counts all that an installation has made, in the cluster, in its own
// folders and in its processes, so that a test can tell what volumes leave behind.

// census is a list of things by sort.
type census struct {
	// things are compared one by one.
	things map[string][]string
	// files are the open files that are no socket, by process: a number that must
	// not grow.
	files map[string]int
	// sockets, threads and memory vary by themselves and are told.
	sockets, threads, memory map[string]int
}

func (in *installation) census(t *testing.T) census {
	t.Helper()
	c := census{
		things: map[string][]string{},
		files:  map[string]int{}, sockets: map[string]int{}, threads: map[string]int{}, memory: map[string]int{},
	}
	add := func(sort string, list []string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", sort, err)
		}
		slices.Sort(list)
		c.things[sort] = list
	}
	s := in.mustStatus(t)
	for sort, command := range map[string]string{
		"buckets in the filer":      "fs.ls /buckets",
		"records and settings":      "fs.tree /etc",
		"collections":               "collection.list",
		"the filer's configuration": "fs.configure",
	} {
		list, err := in.shell(t.Context(), s, command)
		add(sort, list, err)
	}
	admin := in.adminKeys(t, s)
	users, err := listUsers(t.Context(), newIAM(s.Endpoints.S3, admin.Access, admin.Secret))
	add("users", users, err)
	policies, err := listPolicies(t.Context(), newIAM(s.Endpoints.S3, admin.Access, admin.Secret))
	add("managed policies", policies, err)
	buckets, err := listBuckets(t.Context(), admin.client())
	add("buckets", buckets, err)
	mounts, err := mountsBelow(filepath.Dir(in.dir))
	add("mounts", mounts, err)
	folders, err := in.ownFiles()
	add("files of the state", folders, err)
	for _, p := range in.processes() {
		in.countProcess(t, s, p, c)
	}
	return c
}

// left says what there is that was not there before.
func (c census) left(now census) error {
	var errs []error
	for sort, list := range now.things {
		var more []string
		for _, thing := range list {
			if !slices.Contains(c.things[sort], thing) {
				more = append(more, thing)
			}
		}
		if len(more) > 0 {
			errs = append(errs, fmt.Errorf("%s: %d left, such as %s", sort, len(more), more[0]))
		}
	}
	for process, n := range now.files {
		if n > c.files[process] {
			errs = append(errs, fmt.Errorf("%s has %d open files, before %d", process, n, c.files[process]))
		}
	}
	return errors.Join(errs...)
}

// explain tells what varies.
func (c census) explain(t *testing.T, now census) {
	for _, p := range slices.Sorted(maps.Keys(now.files)) {
		t.Logf("%-14s files %d -> %d, sockets %d -> %d, threads %d -> %d, MiB of its own %d -> %d", p,
			c.files[p], now.files[p], c.sockets[p], now.sockets[p], c.threads[p], now.threads[p], c.memory[p], now.memory[p])
	}
}

// shell asks the cluster by weed's own shell, with the configuration that its
// processes have.
func (in *installation) shell(ctx context.Context, s status, command string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var master int
	for _, p := range s.Processes {
		if p.Name == "master" {
			master = p.PID
		}
	}
	weed, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", master))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, weed, "shell",
		fmt.Sprintf("-master=127.0.0.1:%d.%d", s.PortBase, s.PortBase+1),
		fmt.Sprintf("-filer=127.0.0.1:%d.%d", s.PortBase+6, s.PortBase+7))
	if cmd.Dir, err = os.Readlink(fmt.Sprintf("/proc/%d/cwd", master)); err != nil {
		return nil, err
	}
	cmd.Stdin = strings.NewReader(command + "\n")
	out, err := finish(cmd)
	if err != nil {
		return nil, err
	}
	var list []string
	for line := range strings.Lines(out.stdout) {
		// Sizes and counts change without anything being left.
		line = strings.TrimSpace(counts.ReplaceAllString(line, ""))
		// The default collection holds the filer's own log, which comes by itself.
		if line != "" && !strings.HasPrefix(line, "Total") && line != `collection:""` {
			list = append(list, line)
		}
	}
	return list, nil
}

// counts are the figures and the sums of the shell's lists.
var counts = regexp.MustCompile(`\t.*|^\d+ directories, \d+ files|[│├└─]`)

func listUsers(ctx context.Context, c *iam.Client) ([]string, error) {
	var names []string
	for pages := iam.NewListUsersPaginator(c, &iam.ListUsersInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, u := range page.Users {
			names = append(names, aws.ToString(u.UserName))
		}
	}
	return names, nil
}

func listPolicies(ctx context.Context, c *iam.Client) ([]string, error) {
	var names []string
	for pages := iam.NewListPoliciesPaginator(c, &iam.ListPoliciesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, p := range page.Policies {
			names = append(names, aws.ToString(p.PolicyName))
		}
	}
	return names, nil
}

func listBuckets(ctx context.Context, c *s3.Client) ([]string, error) {
	out, err := c.ListBuckets(ctx, &s3.ListBucketsInput{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, b := range out.Buckets {
		names = append(names, aws.ToString(b.Name))
	}
	return names, nil
}

// ownFiles are the files of the state but for the cluster's, the logs and the
// cache, which have their own bounds.
func (in *installation) ownFiles() ([]string, error) {
	var list []string
	for _, dir := range []string{in.dir, in.work} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			rel, _ := filepath.Rel(in.dir, path)
			if d.IsDir() && slices.Contains([]string{"cluster", "logs", "mounter/cache"}, rel) {
				return filepath.SkipDir
			}
			list = append(list, path)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// countProcess adds the figures of a process to c, by its name in the status, or
// by its program.
func (in *installation) countProcess(t *testing.T, s status, pid int, c census) {
	t.Helper()
	args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(args) == 0 {
		return // it has ended
	}
	words := strings.Split(string(args), "\x00")
	name := filepath.Base(words[0])
	if len(words) > 1 {
		name += " " + words[1]
	}
	for _, p := range s.Processes {
		if p.PID == pid {
			name = p.Name
		}
	}
	for c.files[name] > 0 {
		name += "'" // the mounter's parent and its worker
	}
	out, err := finish(asRoot("find", fmt.Sprintf("/proc/%d/fd", pid), "-type", "l", "-printf", "%l\n"))
	if err != nil {
		if _, gone := os.Stat(fmt.Sprintf("/proc/%d", pid)); errors.Is(gone, fs.ErrNotExist) {
			return
		}
		t.Fatal(err)
	}
	for line := range strings.Lines(out.stdout) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "socket:"):
			c.sockets[name]++
		case storeFile.MatchString(line):
			// the cluster's own: it comes and goes without any volume of ours
		default:
			c.files[name]++
		}
	}
	status, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(status)) {
		var n int
		if k, _ := fmt.Sscanf(line, "Threads: %d", &n); k == 1 {
			c.threads[name] = n
		}
		if k, _ := fmt.Sscanf(line, "RssAnon: %d kB", &n); k == 1 {
			c.memory[name] = n >> 10
		}
	}
}

// storeFile is a table of LevelDB, in which the filer and the master keep what they
// know, or a volume of the default collection. Those of a bucket have its name.
var storeFile = regexp.MustCompile(`\.ldb$|/[0-9]+\.log$|/MANIFEST-[0-9]+$|/[0-9]+\.(dat|idx)$`)
