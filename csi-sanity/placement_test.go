package csisanity

import (
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// onServers are the volume servers that have a bucket's volumes, by the volumes' files.
func (in *installation) onServers(t *testing.T, bucket string) map[string][]string {
	t.Helper()
	out, err := finish(asRoot("find", filepath.Join(in.dir, "cluster"), "-name", bucket+"_*.dat", "-printf", "%p\n"))
	if err != nil {
		t.Fatal(err)
	}
	servers := map[string][]string{}
	for path := range strings.FieldsSeq(out.stdout) {
		servers[filepath.Base(path)] = append(servers[filepath.Base(path)], path)
	}
	return servers
}

// copies is in how many of the bucket's volumes' files a text stands.
func (in *installation) copies(t *testing.T, bucket, text string) int {
	t.Helper()
	args := []string{"grep", "-laF", text}
	for _, paths := range in.onServers(t, bucket) {
		args = append(args, paths...)
	}
	out, err := finish(asRoot(args...))
	if err != nil && out.stdout+out.stderr != "" {
		t.Fatal(err)
	}
	return len(strings.Fields(out.stdout))
}

// TestPlacement: content is placed as the parameters say, for what the mount writes and
// for what S3 does; what cannot be had is refused before anything is made; the rule goes
// with the volume, and those of others stay.
func TestPlacement(t *testing.T) {
	in := shared(t)
	s := in.mustStatus(t)
	name := volumeName(t)
	create := func(name string, params ...string) []string {
		args := []string{"volume", "create", name, "--size", "10Gi"}
		for _, p := range params {
			args = append(args, "--param", p)
		}
		return args
	}
	for param, words := range map[string][]string{
		"replication=010": {`replication "010"`, "1 in other racks", "2 in rack DefaultRack of data center DefaultDataCenter", "000 and 001 are possible now"},
		"replication=002": {`replication "002"`, "000 and 001 are possible now"},
		"replication=100": {`replication "100"`, "000 and 001 are possible now"},
		"replication=1":   {`replication="1"`, "three digits"},
		"diskType=nvme":   {`diskType "nvme"`, "hdd is possible now"},
		"disk=ssd":        {`diskType "ssd"`, "hdd is possible now"},
		"dataCenter=mars": {`dataCenter "mars"`, "DefaultDataCenter is possible now"},
		"ttl=5d":          {`ttl="5d"`, "leave the parameter out"},
	} {
		in.fails(t, create(name, param), words...)
	}
	in.fails(t, []string{"volume", "describe", name}, "there is no volume")

	rules := func() string {
		t.Helper()
		list, err := in.shell(t.Context(), s, "fs.configure")
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(list, "\n")
	}
	text := func() string { return "holdfast-" + rand.Text() }
	fill := func(text string) string {
		b := make([]byte, 1<<20)
		_, _ = rand.Read(b)
		return text + string(b)
	}
	written := func(v *volume, dir string, want int) {
		t.Helper()
		mounted, small, put := text(), text(), text()
		for file, body := range map[string]string{"mounted": fill(mounted), "small": small + strings.Repeat("x", 10_000)} {
			f, err := os.Create(filepath.Join(dir, file))
			if err == nil {
				_, err = f.WriteString(body)
			}
			if err == nil {
				err = f.Sync()
			}
			if err == nil {
				err = f.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		v.put(t, "put", fill(put))
		for what, text := range map[string]string{"a file of the mount": mounted, "a small file of the mount": small, "an object": put} {
			if n := in.copies(t, v.Bucket, text); n != want {
				t.Errorf("%s of %s: %s is on %d servers, want %d", what, v.name, text, n, want)
			}
		}
		for volume, paths := range in.onServers(t, v.Bucket) {
			if len(paths) != want {
				t.Errorf("%s is on %d servers, want %d", volume, len(paths), want)
			}
		}
	}
	twice := []string{"replication=001", "disk=hdd", "dataCenter=DefaultDataCenter"}
	v := in.create(t, name, create(name, twice...)[5:]...)
	dir := v.mount(t)
	written(v, dir, 2)
	once := in.create(t, name+"-once")
	written(once, once.mount(t), 1)

	d := unmarshal[described](t, in.must(t, "volume", "describe", name, "-o", "json"))
	if want := map[string]string{"replication": "001", "diskType": "hdd", "dataCenter": "DefaultDataCenter"}; !maps.Equal(d.Placement, want) {
		t.Errorf("placed as %v, want %v", d.Placement, want)
	}
	// The volume's size and what it holds are of one copy.
	if d.Used == nil || *d.Used < 2<<20 || *d.Used > 3<<20 {
		t.Errorf("it says that it holds %v bytes", d.Used)
	}
	if out := in.must(t, "volume", "describe", name); !strings.Contains(out, "replication 001, diskType hdd, dataCenter DefaultDataCenter") {
		t.Errorf("described as %s", out)
	}
	in.must(t, create(name, twice...)...)
	in.fails(t, create(name, "replication=000", "disk=hdd", "dataCenter=DefaultDataCenter"), "other parameters", "replication", `"001"`, `"000"`)
	in.fails(t, create(name), "other parameters", "replication")

	// Somebody else's rule is in the way, and stays; weed writes the whole list anew.
	theirs := fmt.Sprintf("/buckets/%s-theirs/", name)
	if _, err := in.shell(t.Context(), s, "fs.configure -locationPrefix="+theirs+" -fsync -apply"); err != nil {
		t.Fatal(err)
	}
	in.fails(t, create(name+"-theirs", "replication=001"), "somebody else has made a rule", name+"-theirs", "fs.configure")
	in.fails(t, []string{"volume", "describe", name + "-theirs"}, "there is no volume")
	in.drop(t, name)
	if left := rules(); strings.Contains(left, "/buckets/"+name+"/") || !strings.Contains(left, theirs) {
		t.Errorf("the rules after the deletion: %s", left)
	}
	if _, err := in.shell(t.Context(), s, "fs.configure -locationPrefix="+theirs+" -delete -apply"); err != nil {
		t.Fatal(err)
	}
}
