package csisanity

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

const (
	// scaleVariable says how many volumes; make scale sets it.
	scaleVariable = "HOLDFAST_SCALE"
	scaleDefault  = 20
	// scaleClients ask at the same time, as the sidecars of Kubernetes do.
	scaleClients = 8
	// scaleMounted are mounted at a time.
	scaleMounted = 10
	// scaleCall bounds one call.
	scaleCall = 2 * time.Minute
	// scaleSettle is for what the cluster frees behind a deletion.
	scaleSettle = 2 * time.Minute
)

// Many volumes live and die, and nothing of them is left: no bucket, user, policy,
// collection, record, mount, folder or open file.
func TestScale(t *testing.T) {
	n := scaleDefault
	if text := os.Getenv(scaleVariable); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil || n < 1 {
			t.Fatalf("%s=%q: a number of volumes, 1 or more", scaleVariable, text)
		}
	}
	// Alone: a program that another test starts has a copy of our open files for a
	// moment, and keeps a mount busy.
	in := beginAlone(t)
	in.up(t)
	s := &scale{csiClients: in.csi(t), in: in, took: map[string][]time.Duration{}}
	// What is made once and kept is there before the first look: pools, caches.
	s.life(t, "warm", scaleMounted)
	before := in.census(t)
	began := time.Now()
	s.took = map[string][]time.Duration{}
	s.life(t, "scale", n)
	s.report(t, n, time.Since(began))
	eventually(t, scaleSettle, func() error { return before.left(in.census(t)) })
	before.explain(t, in.census(t))
}

// scale is a client of both sockets that takes the time.
type scale struct {
	csiClients
	in *installation

	mu   sync.Mutex
	took map[string][]time.Duration
}

// life makes, lists, mounts and deletes volumes.
func (s *scale) life(t *testing.T, prefix string, n int) {
	t.Helper()
	ids := make([]string, n)
	each(t, scaleClients, n, func(i int) error {
		name := fmt.Sprintf("%s-%04d", prefix, i)
		return s.timed(t.Context(), "create", func(ctx context.Context) error {
			resp, err := s.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
				Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: 1 << 30}, VolumeCapabilities: []*csi.VolumeCapability{oneWriter()},
			})
			ids[i] = resp.GetVolume().GetVolumeId()
			return err
		})
	})
	s.list(t, ids)
	each(t, scaleMounted, n, func(i int) error { return s.mount(t, ids[i]) })
	each(t, scaleClients, n, func(i int) error {
		return s.timed(t.Context(), "delete", func(ctx context.Context) error {
			_, err := s.controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: ids[i]})
			return err
		})
	})
	s.list(t, nil)
}

// list wants every volume once, over pages of a size that divides nothing.
func (s *scale) list(t *testing.T, want []string) {
	t.Helper()
	var have []string
	for token := ""; ; {
		resp, err := s.controller.ListVolumes(t.Context(), &csi.ListVolumesRequest{MaxEntries: 7, StartingToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.GetEntries() {
			have = append(have, e.GetVolume().GetVolumeId())
		}
		if token = resp.GetNextToken(); token == "" {
			break
		}
	}
	slices.Sort(have)
	want = slices.Sorted(slices.Values(want))
	if !slices.Equal(have, want) {
		t.Errorf("%d volumes are listed, want %d", len(have), len(want))
	}
}

// mount mounts a volume as the kubelet does, writes and reads, and unmounts it.
func (s *scale) mount(t *testing.T, id string) error {
	staging := filepath.Join(s.in.work, "staging-"+id)
	target := filepath.Join(s.in.work, "target-"+id)
	err := s.timed(t.Context(), "mount", func(ctx context.Context) error {
		if err := os.Mkdir(staging, 0o750); err != nil {
			return err
		}
		_, err := s.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{VolumeId: id, StagingTargetPath: staging, VolumeCapability: oneWriter()})
		if err != nil {
			return err
		}
		_, err = s.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
			VolumeId: id, StagingTargetPath: staging, TargetPath: target, VolumeCapability: oneWriter(),
		})
		return err
	})
	if err != nil {
		return err
	}
	useErr := writeAndRead(target, id)
	err = s.timed(t.Context(), "unmount", func(ctx context.Context) error {
		_, err := s.node.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: id, TargetPath: target})
		if err != nil {
			return err
		}
		_, err = s.node.NodeUnstageVolume(ctx, &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: staging})
		return err
	})
	if err == nil {
		if err = os.Remove(staging); errors.Is(err, os.ErrNotExist) {
			err = nil
		}
	}
	return errors.Join(useErr, err)
}

// writeAndRead uses a small file, which lies in its entry, and one with a chunk, and
// one that is removed while it is open.
func writeAndRead(dir, id string) error {
	for name, content := range map[string]string{"small": id, "large": string(make([]byte, 1<<17)) + id} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
		if err := sameContent(path, content); err != nil {
			return err
		}
	}
	return removeOpen(filepath.Join(dir, "removed"))
}

func removeOpen(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, 1<<17))
	return errors.Join(err, f.Sync(), os.Remove(path), f.Close())
}

func (s *scale) timed(ctx context.Context, what string, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, scaleCall)
	defer cancel()
	began := time.Now()
	if err := do(ctx); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[what] = append(s.took[what], time.Since(began))
	return nil
}

// report prints what each operation took.
func (s *scale) report(t *testing.T, n int, all time.Duration) {
	t.Logf("%d volumes in %s", n, all.Round(time.Second))
	for _, what := range slices.Sorted(maps.Keys(s.took)) {
		d := s.took[what]
		slices.Sort(d)
		t.Logf("%-8s p50 %s, p99 %s, max %s", what, d[len(d)/2].Round(time.Millisecond), d[len(d)*99/100].Round(time.Millisecond), d[len(d)-1].Round(time.Millisecond))
	}
}

// each calls do with 0 to n-1, some at a time.
func each(t *testing.T, atATime, n int, do func(int) error) {
	t.Helper()
	var all sync.WaitGroup
	next := make(chan int)
	for range atATime {
		all.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					t.Errorf("%d of %d: %v", i, n, err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
