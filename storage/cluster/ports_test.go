package cluster

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

func TestPortPlan(t *testing.T) {
	got := fmt.Sprint(PortPlan(DefaultPortBase, 3).Named())
	want := "[{master http 8325} {master grpc 8326} {volume1 http 8327} {volume1 grpc 8328} {volume2 http 8329} {volume2 grpc 8330} " +
		"{volume3 http 8335} {volume3 grpc 8336} {filer http 8331} {filer grpc 8332} {s3 http 8333} {s3 grpc 8334}]"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	for n := 1; n <= maxVolumeServers; n++ {
		seen := map[int]bool{}
		for _, p := range PortPlan(1000, n).Named() {
			if seen[p.Number] || p.Number < 1000 || p.Number >= 1000+fixedPorts+2*n {
				t.Errorf("%d volume servers: port %d (%s) is taken twice or out of range", n, p.Number, p.Name)
			}
			seen[p.Number] = true
		}
		if s3 := PortPlan(1000, n).S3.HTTP; s3 != 1008 {
			t.Errorf("%d volume servers: S3 at %d", n, s3)
		}
	}
}

func TestFreeBaseNamesTakenPorts(t *testing.T) {
	ctx := t.Context()
	base, err := NextFreeBase(ctx, "127.0.0.1", 20000, 2)
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	for _, port := range []int{base + 3, base + 8} {
		l, err := lc.Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	err = FreeBase(ctx, "127.0.0.1", base, 2)
	if !storage.Is(err, storage.InUse) {
		t.Fatalf("%v", err)
	}
	for _, want := range []string{fmt.Sprintf("%d (volume1 grpc)", base+3), fmt.Sprintf("%d (s3 http)", base+8)} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q misses %q", err, want)
		}
	}
	next, err := NextFreeBase(ctx, "127.0.0.1", base, 2)
	if err != nil || next <= base {
		t.Errorf("next after %d: %d, %v", base, next, err)
	}
}

func TestFreeBaseOutOfRange(t *testing.T) {
	for _, base := range []int{-1, 0, 65530} {
		if err := FreeBase(t.Context(), "127.0.0.1", base, 2); !storage.Is(err, storage.Invalid) {
			t.Errorf("base %d: %v", base, err)
		}
	}
}
