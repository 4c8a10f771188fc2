package csisanity

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// After a life of operations a volume's secrets stand in the cluster's store, where
// its record and IAM are, and in what `volume credentials` printed: in no log, no
// file of ours, no other output, no argument and no environment of a process, and
// not in what a process prints when it is killed to be looked into.
func TestSecretsStayInTheRecord(t *testing.T) {
	in := startState(t)
	w := watchArguments(t, in)
	name := volumeName(t)
	said := ""
	say := func(args ...string) {
		t.Helper()
		out, err := in.run(t.Context(), args...)
		if err != nil {
			t.Error(err)
		}
		said += out.stdout + out.stderr
	}
	fail := func(args ...string) {
		t.Helper()
		out, err := in.run(t.Context(), args...)
		if err == nil {
			t.Errorf("%v succeeded", args)
		}
		said += out.stdout + out.stderr + fmt.Sprint(err)
	}

	say("volume", "create", name, "--size", "1Gi")
	v := &volume{in: in, name: name}
	secrets := map[string]string{}
	learn := func() {
		t.Helper()
		v.readKeys(t)
		secrets["the secret of "+v.Access] = v.Secret
	}
	learn()
	admin := in.adminKeys(t, in.mustStatus(t))
	secrets["the administrator's secret"] = admin.Secret
	v.put(t, "object", "content")
	dir := filepath.Join(in.work, name)
	say("volume", "mount", name, dir)
	if err := sameContent(filepath.Join(dir, "object"), "content"); err != nil {
		t.Error(err)
	}
	secrets["the secret that was added by hand"] = v.addKeyByHand(t).Secret
	say("volume", "rotate-keys", name, "--overlap", "2s")
	learn()
	say("volume", "rotate-keys", name, "--overlap", "0", "-o", "json")
	learn()
	if len(secrets) != 5 {
		t.Fatalf("%d secrets, want 5: %v", len(secrets), secrets)
	}
	say("volume", "describe", name)
	say("volume", "describe", name, "-o", "json")
	say("volume", "list", "-o", "json")
	say("volume", "expand", name, "--size", "2Gi")
	say("status")
	say("status", "-o", "json")
	say("doctor")
	fail("volume", "create", name, "--size", "3Gi", "--access", "single")
	fail("volume", "delete", name, "--yes")
	fail("volume", "mount", name, "/proc")
	// What CSI hands over, and what it may not say again.
	secrets["a secret of CSI"] = "S3CRET-of-the-request"
	secrets["a volume context"] = "C0NTEXT-of-the-request"
	said += in.refusedOverCSI(t, name, secrets["a secret of CSI"], secrets["a volume context"])
	say("volume", "unmount", dir)
	say("volume", "delete", name, "--yes")

	// A process that is asked for its state prints it into its log.
	s := in.mustStatus(t)
	for _, p := range []string{"controller", "node"} {
		if err := asRoot("kill", "-QUIT", fmt.Sprint(s.component(t, p).PID)).Run(); err != nil {
			t.Error(err)
		}
		eventually(t, time.Minute, func() error {
			now, err := in.status(t.Context())
			if err == nil && (now.component(t, p).PID == s.component(t, p).PID || !now.component(t, p).Ready) {
				err = errors.New("not started again")
			}
			return err
		})
	}

	for what, secret := range secrets {
		if secret == "" {
			t.Fatalf("%s is empty", what)
		}
		if strings.Contains(said, secret) {
			t.Errorf("%s is in what the commands printed", what)
		}
		if where := w.saw(secret); where != "" {
			t.Errorf("%s was in the arguments or the environment of %s", what, where)
		}
		files, err := in.filesWith(secret)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: in %v", what, files)
		for _, f := range files {
			store := strings.HasPrefix(f, "cluster/filer/") || strings.HasPrefix(f, "cluster/volume")
			adminFile := what == "the administrator's secret" && (f == "admin.json" || f == "cluster/conf/s3.json")
			if !store && !adminFile {
				t.Errorf("%s is in %s", what, f)
			}
		}
	}
}

// refusedOverCSI sends calls that fail, with secrets and contexts in them, and
// returns the errors.
func (in *installation) refusedOverCSI(t *testing.T, name, secret, vc string) string {
	s := in.csi(t)
	secrets, contexts := map[string]string{"key": secret}, map[string]string{"key": vc}
	said := ""
	for what, do := range map[string]func(context.Context) error{
		"create": func(ctx context.Context) error {
			_, err := s.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
				Name: name, VolumeCapabilities: []*csi.VolumeCapability{oneWriter()}, Secrets: secrets,
			})
			return err
		},
		"delete": func(ctx context.Context) error {
			_, err := s.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: name, Secrets: secrets})
			return err
		},
		"stage": func(ctx context.Context) error {
			_, err := s.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
				VolumeId: name, StagingTargetPath: "/proc/x", VolumeCapability: oneWriter(), Secrets: secrets, VolumeContext: contexts, PublishContext: contexts,
			})
			return err
		},
		"publish": func(ctx context.Context) error {
			_, err := s.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
				VolumeId: name, StagingTargetPath: "/proc/x", TargetPath: "/proc/y", VolumeCapability: oneWriter(),
				Secrets: secrets, VolumeContext: contexts, PublishContext: contexts,
			})
			return err
		},
	} {
		err := do(t.Context())
		if err == nil {
			t.Errorf("%s succeeded", what)
		}
		said += fmt.Sprint(err)
	}
	resp, err := s.controller.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{
		VolumeId: name, VolumeCapabilities: []*csi.VolumeCapability{oneWriter()}, Secrets: secrets, VolumeContext: contexts,
	})
	if err != nil || resp.GetConfirmed() != nil {
		t.Errorf("a foreign volume context: %v, %v", resp, err)
	}
	return said + resp.GetMessage()
}

// filesWith are the files of the installation that hold text. As root: some are for
// their owner alone.
func (in *installation) filesWith(text string) ([]string, error) {
	out, err := finish(asRoot("grep", "-rlF", "--devices=skip", "-e", text, filepath.Dir(in.dir)))
	// 1 means none; 2, with what was found, that a file has gone meanwhile.
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() > 2) {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(out.stdout) {
		rel, err := filepath.Rel(in.dir, strings.TrimSpace(line))
		if err != nil {
			return nil, err
		}
		found = append(found, rel)
	}
	return found, nil
}

// argumentWatch reads the arguments and environments of an installation's
// processes again and again, those of the commands among them.
type argumentWatch struct {
	mu   sync.Mutex
	seen map[string]string
}

func watchArguments(t *testing.T, in *installation) *argumentWatch {
	w := &argumentWatch{seen: map[string]string{}}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			w.look(in)
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	})
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

func (w *argumentWatch) look(in *installation) {
	for _, pid := range in.processes() {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, syscall.ESRCH) {
				continue
			}
			w.mu.Lock()
			w.seen[string(b)] = fmt.Sprintf("%d: %s", pid, bytes.ReplaceAll(b[:min(len(b), 100)], []byte{0}, []byte{' '}))
			w.mu.Unlock()
		}
	}
}

// saw says which process had text in its arguments or environment.
func (w *argumentWatch) saw(text string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	for have, who := range w.seen {
		if strings.Contains(have, text) {
			return who
		}
	}
	return ""
}
