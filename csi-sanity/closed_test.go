package csisanity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

// intruderVariable has the test binary try every door of an installation, as
// whoever runs it, and print what it found open.
const intruderVariable = "HOLDFAST_TEST_INTRUDER"

// doors are all ways into an installation.
type doors struct {
	// GRPC and HTTP are addresses, Sockets and Files paths, by name.
	GRPC, HTTP, Sockets, Files map[string]string
	S3                         string
}

func (in *installation) doors() doors {
	at := func(offset int) string { return fmt.Sprintf("127.0.0.1:%d", in.base+offset) }
	path := func(elem ...string) string { return filepath.Join(append([]string{in.dir}, elem...)...) }
	d := doors{
		GRPC:    map[string]string{"master": at(1), "volume1": at(3), "volume2": at(5), "filer": at(7), "s3": at(9)},
		HTTP:    map[string]string{"master": at(0), "volume1": at(2), "volume2": at(4), "filer": at(6)},
		Sockets: map[string]string{},
		Files:   map[string]string{},
		S3:      "http://" + at(8),
	}
	for _, name := range []string{"csi-controller", "csi-node", "keeper-node", "keeper-mounter"} {
		d.Sockets[name] = path("run", name+".sock")
	}
	for _, name := range []string{"filer", "s3"} {
		d.Sockets[name] = path("cluster", "run", name+".sock")
	}
	for _, name := range []string{"admin.json", "cluster/conf/s3.json", "cluster/conf/security.toml", "cluster/secret/sse-kek", "pki/ca.key"} {
		d.Files[name] = path(name)
	}
	return d
}

// callGRPC calls a method that no server has, and returns nil when the server
// says so: it has listened.
func callGRPC(ctx context.Context, address string, creds credentials.TransportCredentials) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	err = conn.Invoke(ctx, "/intruder.Door/Open", &emptypb.Empty{}, &emptypb.Empty{})
	if code := grpcstatus.Code(err); code == codes.Unavailable || code == codes.DeadlineExceeded {
		return err
	}
	return nil
}

// callHTTP asks for the root, and returns nil when the server answers what it
// answers to friends.
func callHTTP(ctx context.Context, url string, config *tls.Config) error {
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch {
	case resp.StatusCode == http.StatusForbidden,
		resp.StatusCode == http.StatusBadRequest && strings.Contains(string(body), "HTTP request to an HTTPS server"):
		return fmt.Errorf("%s %s", resp.Status, body)
	}
	return nil
}

// open returns the names of the doors that let in, with a certificate or without
// any.
func (d doors) open(ctx context.Context, own ...tls.Certificate) (open []string) {
	try := func(name string, err error) {
		if err == nil {
			open = append(open, name)
		}
	}
	config := func() *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, Certificates: own}
	}
	for name, at := range d.GRPC {
		try(name+" gRPC", callGRPC(ctx, at, insecure.NewCredentials()))
		try(name+" gRPC with TLS", callGRPC(ctx, at, credentials.NewTLS(config())))
	}
	for name, at := range d.HTTP {
		try(name+" HTTP", callHTTP(ctx, "http://"+at+"/", nil))
		try(name+" HTTPS", callHTTP(ctx, "https://"+at+"/", config()))
	}
	for name, path := range d.Sockets {
		for _, network := range []string{"unix", "unixpacket"} {
			c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, path)
			if err == nil {
				_ = c.Close()
			}
			try(name+" socket", err)
		}
	}
	for name, path := range d.Files {
		f, err := os.Open(path)
		if err == nil {
			_ = f.Close()
		}
		try(name, err)
	}
	try("S3", callHTTP(ctx, d.S3+"/", nil))
	slices.Sort(open)
	return open
}

// intruderMain is the test binary as an intruder.
func intruderMain(what string) error {
	var d doors
	if err := json.Unmarshal([]byte(what), &d); err != nil {
		return err
	}
	stranger, err := newIssuer()
	if err != nil {
		return err
	}
	forged, err := stranger.leaf("holdfast-admin", time.Now().Add(time.Hour))
	if err != nil {
		return err
	}
	open := d.open(context.Background())
	for _, name := range d.open(context.Background(), forged) {
		if !slices.Contains(open, name) {
			open = append(open, name+" with a forged certificate")
		}
	}
	return json.NewEncoder(os.Stdout).Encode(open)
}

// TestClosedToOtherUsers: another user of this machine finds no door open, with
// no certificate and with a forged one, over TCP, by a socket or by a file.
func TestClosedToOtherUsers(t *testing.T) {
	in := shared(t)
	if os.Getuid() != 0 {
		t.Skip("only root can be another user")
	}
	// The test binary lies where only we can run it.
	self := filepath.Join(in.work, "intruder")
	b, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(self, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	what, err := json.Marshal(in.doors())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Dir = "/"
	cmd.Env = []string{intruderVariable + "=" + string(what)}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := finish(cmd)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range unmarshal[[]string](t, out.stdout) {
		t.Errorf("open to another user: %s", name)
	}
}

// TestClosedToOtherNames: a certificate of the cluster's own authority opens only
// what its name is for. It also shows that the doors do open, for who may.
func TestClosedToOtherNames(t *testing.T) {
	in := shared(t)
	own, err := readIssuer(in)
	if err != nil {
		t.Skipf("the authority's key: %v", err)
	}
	d := in.doors()
	for name, want := range map[string][]string{
		"holdfast-admin":      {"filer", "master", "s3", "volume1", "volume2"},
		"holdfast-mounter":    {"filer", "volume1", "volume2"},
		"holdfast-node":       {"filer", "volume1", "volume2"},
		"holdfast-controller": {"filer", "master", "volume1", "volume2"},
		"holdfast-gateway":    nil,
		"holdfast-stranger":   nil,
		"":                    nil,
	} {
		leaf, err := own.leaf(name, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for server, at := range d.GRPC {
			creds := credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{leaf}})
			if callGRPC(t.Context(), at, creds) == nil {
				got = append(got, server)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q is let in by %q, want %q", name, got, want)
		}
	}
	old, err := own.leaf("holdfast-admin", time.Now().Add(-time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range (doors{GRPC: d.GRPC, HTTP: d.HTTP}).open(t.Context(), old) {
		if name != "S3" {
			t.Errorf("%s lets in a certificate that has ended", name)
		}
	}
}

// serverSerial is the number of the certificate that a server shows now.
func serverSerial(ctx context.Context, address string) (string, error) {
	var serial string
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, VerifyConnection: func(s tls.ConnectionState) error {
		serial = s.PeerCertificates[0].SerialNumber.String()
		return nil
	}}}
	c, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		_ = c.Close()
	}
	return serial, err
}

// serialIn is the number of the certificate in a file.
func serialIn(path string) (string, error) {
	c, err := tls.LoadX509KeyPair(path, path)
	if err != nil {
		return "", err
	}
	return c.Leaf.SerialNumber.String(), nil
}

// TestCertificatesAreRenewed: one that is about to end is renewed while all runs,
// and servers show the new one without a restart.
func TestCertificatesAreRenewed(t *testing.T) {
	t.Parallel() // it waits for the servers; no other test that runs beside others has this installation
	in := shared(t)
	own, err := readIssuer(in)
	if err != nil {
		t.Skipf("the authority's key: %v", err)
	}
	before := in.mustStatus(t)
	servers := map[string][]int{"master": {0, 1}, "volume": {2, 3, 4, 5}, "filer": {6, 7}, "s3": {9}}
	for name := range servers {
		if err := own.replace(in, name, time.Now().Add(5*24*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	for name, ports := range servers {
		eventually(t, time.Minute, func() error {
			c, err := tls.LoadX509KeyPair(in.certificate(name), in.certificate(name))
			if err != nil {
				return err
			}
			if left := time.Until(c.Leaf.NotAfter); left < 20*24*time.Hour {
				return fmt.Errorf("%s has %s left", name, left)
			}
			return nil
		})
		for _, port := range ports {
			eventually(t, time.Minute, func() error {
				want, err := serialIn(in.certificate(name))
				if err != nil {
					return err
				}
				got, err := serverSerial(t.Context(), fmt.Sprintf("127.0.0.1:%d", in.base+port))
				if err == nil && got != want {
					err = fmt.Errorf("%s on port %d still shows certificate %s, not %s", name, in.base+port, got, want)
				}
				return err
			})
		}
	}
	after := in.mustStatus(t)
	for i, c := range after.Processes {
		if c.Restarts != before.Processes[i].Restarts {
			t.Errorf("%s was started again", c.Name)
		}
	}
}

// TestCertificatesHaveEnded: who meets one hears it, and up renews all of them.
func TestCertificatesHaveEnded(t *testing.T) {
	in := startState(t)
	own, err := readIssuer(in)
	if err != nil {
		t.Skipf("the authority's key: %v", err)
	}
	v := in.create(t, "photos")
	in.must(t, "volume", "mount", v.name, filepath.Join(in.work, "m"))
	supervisor := in.mustStatus(t).Supervisor.PID
	if err := syscall.Kill(supervisor, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := own.replace(in, "admin", time.Now().Add(-time.Minute)); err != nil {
		t.Error(err)
	}
	in.fails(t, []string{"status"}, "certificate of admin ended at", "holdfast down")
	in.fails(t, []string{"up"}, "certificate of admin ended at", "holdfast down")
	in.fails(t, []string{"doctor"}, "certificates", "admin ended at")
	in.fails(t, []string{"volume", "credentials", v.name}, in.certificate("admin"), "ended at", "holdfast up")
	if err := syscall.Kill(supervisor, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() error {
		_, err := in.run(t.Context(), "status")
		return err
	})
	in.must(t, "volume", "credentials", v.name)

	in.mustDown(t)
	for _, name := range []string{"master", "volume", "filer", "s3", "admin", "controller", "node", "mounter"} {
		if err := own.replace(in, name, time.Now().Add(-time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if out := in.must(t, "doctor"); !strings.Contains(out, "holdfast up renews them") {
		t.Errorf("doctor says nothing of certificates that have ended:\n%s", out)
	}
	in.up(t)
	if err := os.WriteFile(filepath.Join(in.work, "m", "f"), []byte("x"), 0o644); err != nil {
		t.Errorf("mounted again by up: %v", err)
	}
	in.must(t, "volume", "unmount", filepath.Join(in.work, "m"))
}

// TestPKIFiles: each key is its owner's alone.
func TestPKIFiles(t *testing.T) {
	in := shared(t)
	want := map[string]uint32{
		"ca.key": 0, "admin.pem": 0, "node.pem": 0, "controller.pem": 64800, "mounter.pem": 64801,
		"master.pem": 64800, "volume.pem": 64800, "filer.pem": 64800, "s3.pem": 64800, "gateway.pem": 64800,
	}
	entries, err := os.ReadDir(filepath.Join(in.dir, "pki"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(want)+1 {
		t.Errorf("%d files, want %d: %v", len(entries), len(want)+1, entries)
	}
	for name, uid := range want {
		if os.Getuid() != 0 {
			uid = uint32(os.Getuid())
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(in.dir, "pki", name), &st); err != nil || st.Mode != syscall.S_IFREG|0o600 || st.Uid != uid {
			t.Errorf("%s: mode %o, uid %d, %v; want 600 and %d", name, st.Mode, st.Uid, err, uid)
		}
	}
	pool := x509.NewCertPool()
	if b, err := os.ReadFile(filepath.Join(in.dir, "pki", "ca.crt")); err != nil || !pool.AppendCertsFromPEM(b) {
		t.Errorf("the authority's certificate: %v", err)
	}
}
