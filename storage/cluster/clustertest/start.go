package clustertest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
)

const (
	// firstBase to lastBase lie below the range that Linux takes outgoing ports
	// from: between the bind test and weed's bind, nobody gets one by chance.
	firstBase = 12000
	lastBase  = 31000
	baseStep  = 50
	baseTries = 200
	// startWait includes a download of the binary on a slow line.
	startWait = 5 * time.Minute
)

// Start returns a running cluster that is killed, with all its data, at the end
// of the test. It is closed: its TLS lets in. edit may change the options, the folder and the ports excepted.
func Start(t testing.TB, edit ...func(*cluster.Options)) *cluster.Cluster {
	t.Helper()
	c, stop, err := start(t.Context(), t.Logf, edit...)
	if err != nil {
		t.Fatalf("start a cluster: %v", err)
	}
	t.Cleanup(stop)
	return c
}

// StartForMain is Start for TestMain. stop kills the cluster and removes its data;
// call it before os.Exit, which runs no deferred call.
func StartForMain(edit ...func(*cluster.Options)) (c *cluster.Cluster, stop func(), err error) {
	return start(context.Background(), nil, edit...)
}

func start(ctx context.Context, logf func(string, ...any), edit ...func(*cluster.Options)) (_ *cluster.Cluster, stop func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, startWait)
	defer cancel()
	weed, err := Weed(ctx)
	if err != nil {
		return nil, nil, err
	}
	base, release, err := reserveBase(ctx)
	if err != nil {
		return nil, nil, err
	}
	// Not t.TempDir: its path holds the test's name, and a unix socket's path must
	// be short.
	dir, err := os.MkdirTemp("", "holdfast-cluster-")
	if err != nil {
		release()
		return nil, nil, err
	}
	clean := func() {
		_ = os.RemoveAll(dir)
		release()
	}
	o := cluster.Options{
		Dir:       filepath.Join(dir, "c"),
		Weed:      weed,
		PortBase:  base,
		AdminKeys: storage.Keys{Access: "ADMIN" + random(5), Secret: random(20)},
		PKI:       filepath.Join(dir, "pki"),
	}
	if logf != nil {
		o.Progress = func(s string) { logf("cluster: %s", s) }
	}
	for _, fn := range edit {
		fn(&o)
	}
	if o.User != nil {
		// The folder is root's alone so far.
		if err := os.Chmod(dir, 0o711); err != nil {
			clean()
			return nil, nil, err
		}
	}
	c, err := cluster.New(o)
	if err == nil {
		err = c.Start(ctx)
	}
	if err != nil {
		clean()
		return nil, nil, err
	}
	return c, func() { c.Kill(); clean() }, nil
}

// Weed returns the binary that tests run: $HOLDFAST_WEED, else one from the cache
// folder, $HOLDFAST_CACHE or the user's own, downloaded where needed.
func Weed(ctx context.Context) (string, error) {
	cache := os.Getenv("HOLDFAST_CACHE") //nolint:forbidigo // a test helper has no flags
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		cache = filepath.Join(user, "holdfast")
	}
	return cluster.FindWeed(ctx, cluster.FindOptions{
		Path:  os.Getenv("HOLDFAST_WEED"), //nolint:forbidigo // as above
		Cache: cache,
	})
}

// ReserveBase returns a base whose ports are free and which no other test binary
// gets until release. volumeServers up to 16 fit.
func ReserveBase(t testing.TB) int {
	t.Helper()
	base, release, err := reserveBase(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return base
}

func reserveBase(ctx context.Context) (base int, release func(), err error) {
	var lc net.ListenConfig
	for range baseTries {
		n, randErr := rand.Int(rand.Reader, big.NewInt((lastBase-firstBase)/baseStep))
		if randErr != nil {
			return 0, nil, randErr
		}
		base = firstBase + int(n.Int64())*baseStep
		var l net.Listener
		if l, err = lc.Listen(ctx, "unix", fmt.Sprintf("@holdfast-ports-%d", base)); err != nil {
			continue
		}
		if err = cluster.FreeBase(ctx, "127.0.0.1", base, 16); err != nil {
			_ = l.Close()
			continue
		}
		return base, func() { _ = l.Close() }, nil
	}
	return 0, nil, fmt.Errorf("no free ports for a test's cluster: %w", err)
}

func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // documented never to fail
	return hex.EncodeToString(b)
}
