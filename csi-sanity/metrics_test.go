package csisanity

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// scrape returns the samples of a process: name{labels} → value.
func scrape(ctx context.Context, address string) (map[string]float64, string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("%s: %s: %s (%w)", address, resp.Status, body, err)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		name, value, ok := cutLast(strings.TrimSpace(line), " ")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if samples[name], err = strconv.ParseFloat(value, 64); err != nil {
			return nil, "", fmt.Errorf("%s: %q", address, line)
		}
	}
	return samples, string(body), nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// documented are the metrics of a process, by METRICS.md.
func documented(t *testing.T, process string) (names []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "METRICS.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(holdfast_[a-z_]+)` \\| [a-z]+ \\| [^|]* \\| ([^|]*) \\|").FindAllStringSubmatch(string(text), -1) {
		if slices.Contains(strings.Split(m[2], ", "), process) {
			names = append(names, m[1])
		}
	}
	if len(names) < 3 {
		t.Fatalf("METRICS.md has %q of the %s", names, process)
	}
	return names
}

// What controller, node and mounter tell is what METRICS.md says, no more and no less,
// and is true; without the flag there is no port; no secret is among it.
func TestMetrics(t *testing.T) {
	in := shared(t)
	const process = 3
	var at [process]string
	for i := range at {
		at[i] = fmt.Sprintf("127.0.0.1:%d", in.base+basePorts+i)
	}
	n := startNodeWith(t, in, "metrics-node", []string{"--metrics-address", at[1]}, []string{"--metrics-address", at[2]})
	s := in.mustStatus(t)
	n.start(t, 0, "holdfast", append([]string{
		"controller", "--socket", filepath.Join(n.dir, "controller.sock"), "--filer", s.Endpoints.Filer,
		"--s3-endpoint", s.Endpoints.S3, "--admin-keys-file", s.Endpoints.AdminKeys, "--metrics-address", at[0],
	}, certificates(t, s.component(t, "controller").PID)...)...)
	v := in.create(t, volumeName(t))
	if err := n.stage(t, v.Bucket); err != nil {
		t.Fatal(err)
	}
	dir := n.publish(t, v.Bucket, "pod", false)
	defer func() {
		_, err := n.node.NodeUnpublishVolume(t.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.Bucket, TargetPath: dir})
		if err == nil {
			err = n.unstage(t.Context(), v.Bucket)
		}
		if err != nil {
			t.Error(err)
		}
	}()
	big := bytes.Repeat([]byte("holdfast"), 3<<20/8)
	if err := os.WriteFile(filepath.Join(dir, "file"), big, 0o600); err != nil {
		t.Fatal(err)
	}
	v.put(t, "object", string(big))
	for _, name := range []string{"object", "object"} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, big) {
			t.Fatalf("read: %d bytes, %v", len(got), err)
		}
	}
	label := fmt.Sprintf(`{volume="%s"}`, v.Bucket)

	controllerAPI := csi.NewControllerClient(dialSocket(t, filepath.Join(n.dir, "controller.sock")))
	eventually(t, time.Minute, func() error {
		_, err := controllerAPI.ListVolumes(t.Context(), &csi.ListVolumesRequest{})
		return err
	})
	before, _, err := scrape(t.Context(), at[1])
	if err != nil {
		t.Fatal(err)
	}
	if size, ok := before["holdfast_volume_capacity_bytes"+label]; ok {
		t.Errorf("a size that nobody has measured: %v", size)
	}
	if _, err := n.node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: v.Bucket, VolumePath: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.node.NodeGetVolumeStats(t.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: "no-such", VolumePath: dir}); err == nil {
		t.Error("no such volume was measured")
	}
	told := map[string]map[string]float64{}
	var text strings.Builder
	for i, of := range []string{"controller", "node", "mounter"} {
		samples, body, err := scrape(t.Context(), at[i])
		if err != nil {
			t.Fatal(err)
		}
		told[of] = samples
		text.WriteString(body)
		names := documented(t, of)
		for sample := range samples {
			name, _, _ := strings.Cut(sample, "{")
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				if base, is := strings.CutSuffix(name, suffix); is && slices.Contains(names, base) {
					name = base
				}
			}
			if strings.HasPrefix(name, "holdfast_") && !slices.Contains(names, name) {
				t.Errorf("the %s tells %s, which METRICS.md does not have", of, sample)
			}
		}
		for _, name := range names {
			if !slices.ContainsFunc(slices.Collect(maps.Keys(samples)), func(s string) bool { return strings.HasPrefix(s, name) }) {
				t.Errorf("the %s does not tell %s", of, name)
			}
		}
		for _, path := range []string{"livez", "readyz"} {
			if code := httpStatus(t, "http://"+at[i]+"/"+path); code != http.StatusOK {
				t.Errorf("%s of the %s: %d", path, of, code)
			}
		}
	}
	for _, want := range []struct {
		of, sample string
		least      float64
		most       float64
	}{
		{"controller", `holdfast_volumes{phase="ready"}`, 1, 1e6},
		{"controller", `holdfast_csi_call_duration_seconds_count{code="OK",method="ListVolumes"}`, 1, 1},
		{"node", `holdfast_csi_call_duration_seconds_count{code="OK",method="NodePublishVolume"}`, 1, 1},
		{"node", `holdfast_csi_call_duration_seconds_count{code="NotFound",method="NodeGetVolumeStats"}`, 1, 1},
		{"node", "holdfast_volume_capacity_bytes" + label, 10 << 30, 10 << 30},
		{"node", "holdfast_volume_used_bytes" + label, 6 << 20, 7 << 20},
		{"node", fmt.Sprintf(`holdfast_volume_state{state="Healthy",volume="%s"}`, v.Bucket), 1, 1},
		{"mounter", "holdfast_volume_written_bytes_total" + label, 3 << 20, 3 << 20},
		{"mounter", "holdfast_volume_read_bytes_total" + label, 3 << 20, 7 << 20},
		{"mounter", "holdfast_volume_stream_up" + label, 1, 1},
		{"mounter", "holdfast_volume_leftovers" + label, 0, 0},
		{"mounter", "holdfast_volume_journal_bytes" + label, 1, 64 << 20},
		{"mounter", "holdfast_upload_bytes_total", 3 << 20, 4 << 20},
		{"mounter", `holdfast_upload_duration_seconds_count{result="ok"}`, 1, 100},
		{"mounter", `holdfast_commit_duration_seconds_count{result="ok"}`, 1, 100},
		{"mounter", `holdfast_fuse_request_duration_seconds_count{opcode="write"}`, 3, 1000},
		{"mounter", `holdfast_fuse_request_duration_seconds_count{opcode="getattr"}`, 1, 1000},
		{"mounter", `holdfast_fuse_io_errors_total{opcode="write"}`, 0, 0},
		{"mounter", "holdfast_cache_misses_total", 1, 1000},
		{"mounter", "holdfast_cache_bad_blocks_total", 0, 0},
		{"mounter", "holdfast_mounter_workers_started_total", 1, 1},
		{"mounter", `holdfast_mounter_sessions{origin="new"}`, 1, 1},
	} {
		if got, ok := told[want.of][want.sample]; !ok || got < want.least || got > want.most {
			t.Errorf("the %s: %s is %v (%v), want %v to %v", want.of, want.sample, got, ok, want.least, want.most)
		}
	}
	for what, secret := range map[string]string{"access key": v.Access, "secret key": v.Secret, "administrator's key": in.adminKeys(t, s).Secret} {
		if secret == "" || strings.Contains(text.String(), secret) {
			t.Errorf("the %s %q is told", what, secret)
		}
	}

	// The port outlives the worker, and who scrapes waits for the next one.
	killed, err := workerOf(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, func() error {
		samples, _, err := scrape(t.Context(), at[2])
		if err == nil && (samples["holdfast_mounter_workers_started_total"] != 2 || samples[`holdfast_mounter_sessions{origin="taken_over"}`] != 1) {
			err = fmt.Errorf("after a take-over: %v workers, %v sessions", samples["holdfast_mounter_workers_started_total"], samples[`holdfast_mounter_sessions{origin="taken_over"}`])
		}
		return err
	})
	if got, err := os.ReadFile(filepath.Join(dir, "object")); err != nil || !bytes.Equal(got, big) {
		t.Errorf("after a take-over: %v", err)
	}

	// What cannot be listened on is said by name, at once.
	bad := func(program string, args ...string) {
		out, err := finish(exec.CommandContext(t.Context(), filepath.Join(bin, program), args...))
		if err == nil || !strings.Contains(out.stderr, "--metrics-address") {
			t.Errorf("%s %q: %v, %s", program, args, err, out.stderr)
		}
	}
	bad("holdfast", "node", "--socket", filepath.Join(n.dir, "x.sock"), "--node-id", "x", "--filer", s.Endpoints.Filer, "--keeper-socket", "/x", "--metrics-address", "9809")
	bad("holdfast", "node", "--socket", filepath.Join(n.dir, "x.sock"), "--node-id", "x", "--filer", s.Endpoints.Filer, "--keeper-socket", "/x", "--metrics-address", at[1])
}

// workerOf finds the mounter's worker of a second node.
func workerOf(n *secondNode) (pid int, err error) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		args, _ := os.ReadFile(path)
		if bytes.Contains(args, []byte("\x00worker\x00")) && bytes.Contains(args, []byte(n.dir+"/")) {
			return strconv.Atoi(filepath.Base(filepath.Dir(path)))
		}
	}
	return 0, fmt.Errorf("no worker of %s", n.dir)
}

func httpStatus(t *testing.T, url string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
