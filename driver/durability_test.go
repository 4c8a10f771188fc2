package driver

import (
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

var onTheNode = map[string]string{"durability": "node"}

// TestDurabilityOfTheNodeNeedsOneNode: a volume that more than one node may have is
// refused when it is made, and a mode of many nodes of one that is there.
func TestDurabilityOfTheNodeNeedsOneNode(t *testing.T) {
	//nolint:exhaustive // UNKNOWN is not to be had
	for m, want := range map[mode]bool{writer: true, singleWriter: true, multiWriter: true, reader: false, readers: false, oneOfMany: false, everyone: false} {
		b := newBench(t)
		req := ask("photos", m)
		req.Parameters = onTheNode
		_, err := b.controller.CreateVolume(t.Context(), req)
		if want {
			must(t, err)
			continue
		}
		wantKind(t, m.String(), err, storage.Invalid)
		for _, word := range []string{`durability="node"`, m.String(), "SINGLE_NODE_WRITER", "durability=cluster"} {
			if err != nil && !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %s", m, err, word)
			}
		}
		if _, err := b.store.GetRecord(t.Context(), "photos"); !storage.Is(err, storage.NotFound) {
			t.Errorf("%s: something was made, %v", m, err)
		}
	}
	b := newBench(t)
	req := ask("photos", writer)
	req.Parameters = onTheNode
	_, err := b.controller.CreateVolume(t.Context(), req)
	must(t, err)
	for _, m := range []mode{everyone, readers, oneOfMany} {
		wantKind(t, "stage "+m.String(), b.stage(t, b.node, "staging", m), storage.Invalid)
		resp, err := b.controller.ValidateVolumeCapabilities(t.Context(), &csi.ValidateVolumeCapabilitiesRequest{VolumeId: "photos", VolumeCapabilities: []*csi.VolumeCapability{mountCap(m)}})
		must(t, err)
		if resp.GetConfirmed() != nil || resp.GetMessage() == "" {
			t.Errorf("%s is confirmed", m)
		}
	}
	if len(b.mounter.mu.configs) > 0 {
		t.Error("something was mounted")
	}
}

// TestDurabilityReachesTheMounter: with its delay, and nothing of it for the volumes
// that were made before there was one.
func TestDurabilityReachesTheMounter(t *testing.T) {
	for what, test := range map[string]struct {
		params     map[string]string
		durability Durability
		delay      time.Duration
	}{
		"none":    {nil, "", 0},
		"cluster": {map[string]string{"durability": "cluster"}, "", 0},
		"node":    {onTheNode, NodeDurability, time.Second},
		"delay":   {map[string]string{"durability": "node", "commitDelay": "5m"}, NodeDurability, 5 * time.Minute},
	} {
		b := newBench(t)
		req := ask("photos", writer)
		req.Parameters = test.params
		_, err := b.controller.CreateVolume(t.Context(), req)
		must(t, err)
		must(t, b.stage(t, b.node, "staging", writer))
		if c := b.mounter.mu.configs; len(c) != 1 || c[0].Durability != test.durability || c[0].CommitDelay != test.delay || c[0].Epoch == 0 {
			t.Errorf("%s: %+v", what, c)
		}
	}
}

// TestDurabilityOfTheClusterIsNone: a volume that was made with it is what is asked
// for without it.
func TestDurabilityOfTheClusterIsNone(t *testing.T) {
	b := newBench(t)
	req := ask("photos", writer)
	_, err := b.controller.CreateVolume(t.Context(), req)
	must(t, err)
	req.Parameters = map[string]string{"durability": "cluster"}
	_, err = b.controller.CreateVolume(t.Context(), req)
	must(t, err)
	req.Parameters = onTheNode
	_, err = b.controller.CreateVolume(t.Context(), req)
	wantKind(t, "another durability", err, storage.Exists)
}

// TestRecordOfAnotherDurability: what this program would not make it does not serve.
func TestRecordOfAnotherDurability(t *testing.T) {
	for what, params := range map[string]map[string]string{
		"shared": onTheNode, "disk": {"durability": "disk"}, "a coming one": {"durability": "moon"},
	} {
		b := newBench(t)
		b.create(t, everyone)
		r, err := b.store.GetRecord(t.Context(), "photos")
		must(t, err)
		r.Parameters = params
		_, err = b.store.UpdateRecord(t.Context(), r)
		must(t, err)
		if err := b.stage(t, b.node, "staging", writer); err == nil || len(b.mounter.mu.configs) > 0 {
			t.Errorf("%s: staged, %v", what, err)
		}
	}
}
