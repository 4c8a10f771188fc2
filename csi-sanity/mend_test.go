package csisanity

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// Somebody removes a volume's policy, or its user, by hand: its health tells, the mount
// goes on, and a rotation of keys or a repeated creation makes it right. The key that
// was taken away stays dead.
func TestUserChangedByHand(t *testing.T) {
	in := shared(t)
	v := in.create(t, volumeName(t), "--access", "shared")
	v.put(t, "object", "content")
	dir := v.mount(t)
	c := in.csi(t)
	health := func() string {
		t.Helper()
		resp, err := c.controller.ControllerGetVolumeHealth(t.Context(), &csi.ControllerGetVolumeHealthRequest{VolumeId: v.name})
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, h := range resp.GetVolumeHealth().GetHealthStatuses() {
			all = append(all, fmt.Sprintf("%v %s: %s", h.GetStatus(), h.GetReason(), h.GetMessage()))
		}
		return strings.Join(all, "\n")
	}
	remove := func(folder string) {
		t.Helper()
		if had := health(); had != "" {
			t.Errorf("before: %s", had)
		}
		if _, err := in.shell(t.Context(), in.mustStatus(t), fmt.Sprintf("fs.rm /etc/iam/%s/holdfast-%s.json", folder, v.name)); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Minute, func() error { return stillWorks(t.Context(), v) })
		if now := health(); !strings.Contains(now, "DEGRADED KeysChanged") || !strings.Contains(now, "is gone; rotate-keys makes it right") {
			t.Errorf("without its file in %s: %q", folder, now)
		}
		if err := sameContent(dir+"/object", "content"); err != nil {
			t.Errorf("the mount: %v", err)
		}
	}
	well := func() {
		t.Helper()
		old := *v
		v.readKeys(t)
		if old.Access == v.Access {
			t.Error("the key is the one that was taken away")
		}
		if err := onBucket(v.Bucket, "object")["get"](t.Context(), v.client()); err != nil {
			t.Errorf("the new key: %v", err)
		}
		denied(t, "the old key", onBucket(v.Bucket, "object")["get"](t.Context(), old.client()))
		for _, rules := range []map[string]call{rulesOf(v.Bucket), moreRules(v.Bucket)} {
			for what, do := range rules {
				denied(t, what, do(t.Context(), v.client()))
			}
		}
		if now := health(); now != "" {
			t.Errorf("after: %s", now)
		}
	}

	remove("policies")
	in.must(t, "volume", "rotate-keys", v.name, "--overlap", "0")
	well()

	remove("identities")
	_, err := c.controller.CreateVolume(t.Context(), &csi.CreateVolumeRequest{
		Name: v.name, CapacityRange: &csi.CapacityRange{RequiredBytes: 10 << 30},
		VolumeCapabilities: []*csi.VolumeCapability{capabilityOf(csi.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER)},
	})
	if err != nil {
		t.Fatal(err)
	}
	well()
}
