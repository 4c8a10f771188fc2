package csisanity

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
)

// inlinePod is a pod with an inline volume, as the kubelet tells of it.
type inlinePod struct {
	name, uid, dir, id string
	attributes         map[string]string
}

func (in *installation) inlinePod(name string, attributes ...string) inlinePod {
	p := inlinePod{name: name, uid: "uid-of-" + name, dir: filepath.Join(in.work, name)}
	p.id = fmt.Sprintf("csi-%x", sha256.Sum256([]byte(p.uid)))
	p.attributes = map[string]string{
		"csi.storage.k8s.io/ephemeral": "true", "csi.storage.k8s.io/pod.uid": p.uid, "csi.storage.k8s.io/pod.name": name,
		"csi.storage.k8s.io/pod.namespace": "team", "csi.storage.k8s.io/serviceAccount.name": "default",
	}
	for i := 0; i < len(attributes); i += 2 {
		p.attributes[attributes[i]] = attributes[i+1]
	}
	return p
}

// publish is NodePublishVolume, repeated as the kubelet does while nobody can answer.
func (p inlinePod) publish(t *testing.T, node csi.NodeClient) error {
	t.Helper()
	_, err := node.NodePublishVolume(t.Context(), &csi.NodePublishVolumeRequest{VolumeId: p.id, TargetPath: p.dir, VolumeCapability: oneWriter(), VolumeContext: p.attributes})
	return err
}

func (p inlinePod) unpublish(t *testing.T, node csi.NodeClient) error {
	t.Helper()
	_, err := node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: p.id, TargetPath: p.dir})
	return err
}

// A volume in a pod's own specification: its bucket comes with the pod and goes with it,
// whoever dies meanwhile, and nothing of it is left in the cluster or on the node. Its
// attributes reach no other bucket.
func TestInlineVolumes(t *testing.T) {
	in := startState(t)
	node := in.nodeService(t)
	claimed := in.create(t, "claimed") // what is there from the beginning stays
	in.must(t, "volume", "unmount", claimed.mount(t))
	before := in.census(t)
	for name, value := range map[string]string{"bucketName": "claimed", "prefix": "x", "onDelete": "retain", "secretKey": "hunter2", "replication": "001"} {
		refused(t, name, in.inlinePod("refused", name, value).publish(t, node), codes.InvalidArgument, name, "size")
	}

	// Several at once.
	var pods []inlinePod
	for i := range 5 {
		pods = append(pods, in.inlinePod(fmt.Sprintf("pod-%d", i), "size", "64Mi", "mountOptions", "noatime"))
	}
	var at sync.WaitGroup
	for _, p := range pods {
		at.Go(func() {
			begun := time.Now()
			for range 2 {
				if err := p.publish(t, node); err != nil {
					t.Errorf("%s: %v", p.name, err)
				}
			}
			t.Logf("%s published in %v", p.name, time.Since(begun))
			if err := os.WriteFile(filepath.Join(p.dir, "file"), []byte(p.name), 0o600); err != nil {
				t.Error(err)
			}
		})
	}
	at.Wait()
	for _, p := range pods {
		if got, err := os.ReadFile(filepath.Join(p.dir, "file")); err != nil || string(got) != p.name {
			t.Errorf("%s: %q, %v", p.name, got, err)
		}
		var fs syscall.Statfs_t
		if err := syscall.Statfs(p.dir, &fs); err != nil || int64(fs.Blocks)*fs.Frsize != 64<<20 {
			t.Errorf("%s has %d bytes, %v", p.name, int64(fs.Blocks)*fs.Frsize, err)
		}
		stats, err := node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: p.id, VolumePath: p.dir})
		if err != nil || stats.GetUsage()[0].GetTotal() != 64<<20 {
			t.Errorf("%s: %v, %v", p.name, stats, err)
		}
	}
	if err := os.WriteFile(filepath.Join(pods[0].dir, "large"), make([]byte, 65<<20), 0o600); err == nil {
		t.Error("65 MiB went into 64")
	}

	// Without a controller a pod waits, and starts when there is one; with the node
	// process dead its volume is served on.
	kill(t, in.mustStatus(t).component(t, "node").PID)
	if err := os.WriteFile(filepath.Join(pods[1].dir, "file"), []byte("on"), 0o600); err != nil {
		t.Error(err)
	}
	eventually(t, time.Minute, func() error { return pods[1].publish(t, node) })
	kill(t, in.mustStatus(t).component(t, "controller").PID)
	late := in.inlinePod("late")
	eventually(t, time.Minute, func() error { return late.publish(t, node) })

	// What is open keeps the volume, and then all goes.
	f, err := os.Open(filepath.Join(pods[2].dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	refused(t, "unpublish while it is used", pods[2].unpublish(t, node), codes.FailedPrecondition, "busy")
	_ = f.Close()
	for i, p := range append(pods, late) {
		if i == 3 {
			kill(t, in.mustStatus(t).component(t, "controller").PID)
		}
		eventually(t, time.Minute, func() error { return p.unpublish(t, node) })
		if err := p.unpublish(t, node); err != nil {
			t.Errorf("%s, again: %v", p.name, err)
		}
		if _, err := os.Lstat(p.dir); !os.IsNotExist(err) {
			t.Errorf("%s: its folder is left: %v", p.name, err)
		}
	}
	eventually(t, time.Minute, func() error {
		list, err := in.run(t.Context(), "volume", "list") // the controller may not be there yet
		if err == nil && strings.Contains(list.stdout, "csi-") {
			err = fmt.Errorf("volumes are left:\n%s", list.stdout)
		}
		return err
	})
	eventually(t, scaleSettle, func() error { return before.left(in.census(t)) })
}
