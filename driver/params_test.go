package driver

import (
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// retained is what a folder, and a bucket that exists, need.
const retained = "retain"

func TestParametersTaken(t *testing.T) {
	id, mode := uint32(1000), uint32(0o600)
	for what, test := range map[string]struct {
		given, kept map[string]string
		check       func(settings) bool
	}{
		"none":        {nil, nil, func(s settings) bool { return s.bucket == "" && s.onDelete == "" }},
		"claim":       {map[string]string{"csi.storage.k8s.io/pvc/name": "x", "csi.storage.k8s.io/whatever": "y"}, nil, nil},
		"bucket":      {map[string]string{"bucketName": "photos"}, map[string]string{"bucketName": "photos"}, func(s settings) bool { return s.bucket == "photos" && s.bucket.fixed() }},
		"alias":       {map[string]string{"bucket": "photos"}, map[string]string{"bucketName": "photos"}, nil},
		"template":    {map[string]string{"bucketName": "${pvc.namespace}-${pvc.name}"}, map[string]string{"bucketName": "${pvc.namespace}-${pvc.name}"}, func(s settings) bool { return !s.bucket.fixed() }},
		"equal twice": {map[string]string{"bucket": "photos", "bucketName": "photos", "path": "/buckets/photos"}, map[string]string{"bucketName": "photos"}, nil},
		"path":        {map[string]string{"path": "/buckets/photos/a/b", "onDelete": retained}, map[string]string{"bucketName": "photos", "prefix": "a/b", "onDelete": retained}, nil},
		"owner and mode": {map[string]string{"uid": "1000", "fileMode": "0600", "dirMode": "0700"}, map[string]string{"uid": "1000", "fileMode": "0600", "dirMode": "0700"}, func(s settings) bool {
			return *s.objects.UID == id && *s.objects.FileMode == mode && s.objects.GID == nil
		}},
		"placement": {map[string]string{"replication": "012", "disk": "SSD", "dataCenter": "dc1"}, map[string]string{"replication": "012", "diskType": "SSD", "dataCenter": "dc1"}, func(s settings) bool {
			return s.placement == storage.Placement{Replication: "012", DiskType: "ssd", DataCenter: "dc1"}
		}},
		"cache":              {map[string]string{"cacheSize": "10Gi"}, map[string]string{"cacheSize": "10Gi"}, func(s settings) bool { return *s.cacheSize == 10<<30 }},
		"no cache":           {map[string]string{"cacheSize": "0"}, map[string]string{"cacheSize": "0"}, func(s settings) bool { return *s.cacheSize == 0 }},
		"cache of others":    {map[string]string{"cacheCapacityMB": "128"}, map[string]string{"cacheSize": "128Mi"}, func(s settings) bool { return *s.cacheSize == 128<<20 }},
		"no cache of others": {map[string]string{"cacheCapacityMB": "0"}, map[string]string{"cacheSize": "0"}, nil},
		"as it is":           {map[string]string{"mounter": "geesefs", "options": "", "parentDir": "/buckets", "dataLocality": "none", "usePathStyle": "true", "ttl": "0", "writebackCache": "false", "volumeServerAccess": "direct", "durability": "cluster"}, nil, nil},
		"collection":         {map[string]string{"collection": "photos", "bucketName": "photos"}, map[string]string{"bucketName": "photos"}, nil},
		"use prefix":         {map[string]string{"usePrefix": "true", "bucket": "b12", "prefix": "a", "onDelete": retained}, map[string]string{"bucketName": "b12", "prefix": "a", "onDelete": retained}, nil},
		"durability":         {map[string]string{"durability": "node"}, map[string]string{"durability": "node"}, func(s settings) bool { return s.durability == NodeDurability && s.commitDelay == 0 }},
		"delay":              {map[string]string{"durability": "node", "commitDelay": "100ms"}, map[string]string{"durability": "node", "commitDelay": "100ms"}, func(s settings) bool { return s.commitDelay == 100*time.Millisecond }},
	} {
		s, err := parseParams(test.given)
		if err != nil || !maps.Equal(s.kept, test.kept) || test.check != nil && !test.check(s) {
			t.Errorf("%s: %+v, %v", what, s, err)
		}
	}
}

// TestParametersRefused: each refusal names what was given and what would do.
func TestParametersRefused(t *testing.T) {
	for what, test := range map[string]struct {
		given map[string]string
		words []string
	}{
		"unknown":          {map[string]string{"bucketNme": "x"}, []string{"bucketNme", "nearest known one is bucketName"}},
		"case":             {map[string]string{"filemode": "0600"}, []string{"filemode", "fileMode"}},
		"two differ":       {map[string]string{"bucket": "one", "bucketName": "two"}, []string{"bucket (", "bucketName (", "one", "two", "differ"}},
		"path differs":     {map[string]string{"path": "/buckets/one", "bucketName": "two"}, []string{"path", "bucketName", "differ"}},
		"path elsewhere":   {map[string]string{"path": "/data/one"}, []string{"/data/one", "/buckets/NAME"}},
		"path above":       {map[string]string{"path": "/buckets/../etc"}, []string{"/buckets/NAME"}},
		"empty bucket":     {map[string]string{"bucketName": ""}, []string{"bucketName", "empty"}},
		"bad bucket":       {map[string]string{"bucketName": "Photos_1"}, []string{"bucketName", "Photos_1", "lower-case"}},
		"address":          {map[string]string{"bucketName": "10.0.0.1"}, []string{"10.0.0.1"}},
		"bad template":     {map[string]string{"bucketName": "${pvc.uid}"}, []string{"${pvc.uid}", "${pvc.name}"}},
		"open template":    {map[string]string{"bucketName": "${pvc.name"}, []string{"closed"}},
		"lone prefix":      {map[string]string{"prefix": "a", "onDelete": retained}, []string{"prefix", "bucketName"}},
		"folder to delete": {map[string]string{"bucketName": "photos", "prefix": "a"}, []string{"prefix", "onDelete=retain"}},
		"folder, delete":   {map[string]string{"bucketName": "photos", "prefix": "a", "onDelete": "delete"}, []string{"onDelete=retain"}},
		"bad folder":       {map[string]string{"bucketName": "photos", "prefix": "/a", "onDelete": retained}, []string{"prefix", "/a"}},
		"pattern":          {map[string]string{"bucketName": "photos", "prefix": "a*", "onDelete": retained}, []string{"a*"}},
		"on delete":        {map[string]string{"onDelete": "keep"}, []string{"onDelete", "keep", "delete, retain or archive"}},
		"uid":              {map[string]string{"uid": "root"}, []string{"uid", "root", "0 to"}},
		"uid -1":           {map[string]string{"uid": "4294967295"}, []string{"uid"}},
		"mode":             {map[string]string{"fileMode": "888"}, []string{"fileMode", "888", "octal"}},
		"mode 0":           {map[string]string{"dirMode": "0"}, []string{"dirMode", "0001"}},
		"setuid":           {map[string]string{"fileMode": "4755"}, []string{"0777"}},
		"mounter":          {map[string]string{"mounter": "tape"}, []string{"mounter", "tape", "one mounter"}},
		"options":          {map[string]string{"options": "--memory-limit 1000"}, []string{"options", "no effect"}},
		"cache":            {map[string]string{"cacheSize": "15Mi"}, []string{"cacheSize", "15Mi", "16Mi"}},
		"no cache":         {map[string]string{"cacheSize": ""}, []string{"cacheSize", "16Mi"}},
		"cache of others":  {map[string]string{"cacheCapacityMB": "ten"}, []string{"cacheCapacityMB", "ten", "16Mi"}},
		"small of others":  {map[string]string{"cacheCapacityMB": "10"}, []string{"cacheCapacityMB", "10Mi", "16Mi"}},
		"cache folder":     {map[string]string{"cacheDir": "/tmp"}, []string{"cacheDir", "seaweedfs-csi-driver", "--cache-dir"}},
		"caches differ":    {map[string]string{"cacheCapacityMB": "100", "cacheSize": "100M"}, []string{"cacheCapacityMB (", "cacheSize (", "differ"}},
		"collection":       {map[string]string{"collection": "x"}, []string{"collection", "leave the parameter out"}},
		"replication":      {map[string]string{"replication": "1"}, []string{"replication", `"1"`, "three digits"}},
		"no replication":   {map[string]string{"replication": ""}, []string{"replication", "three digits"}},
		"large":            {map[string]string{"replication": "300"}, []string{"300", "at most 255"}},
		"no disk":          {map[string]string{"disk": ""}, []string{"disk", "hdd"}},
		"disks differ":     {map[string]string{"disk": "ssd", "diskType": "hdd"}, []string{"disk (", "diskType (", "differ"}},
		"no data center":   {map[string]string{"dataCenter": ""}, []string{"dataCenter"}},
		"ttl":              {map[string]string{"ttl": "5d"}, []string{"ttl", "5d", "leave the parameter out"}},
		"durability":       {map[string]string{"durability": "disk"}, []string{"durability", "disk", "does not tell which store", "cluster or node"}},
		"no durability":    {map[string]string{"durability": "Node"}, []string{"durability", "Node", "cluster or node"}},
		"lone delay":       {map[string]string{"commitDelay": "1s"}, []string{"commitDelay", "1s", "durability=node"}},
		"cluster's delay":  {map[string]string{"commitDelay": "1s", "durability": "cluster"}, []string{"commitDelay", "durability=node"}},
		"short delay":      {map[string]string{"commitDelay": "99ms", "durability": "node"}, []string{"commitDelay", "99ms", "100ms to 5m"}},
		"long delay":       {map[string]string{"commitDelay": "5m1s", "durability": "node"}, []string{"commitDelay", "5m1s", "100ms to 5m"}},
		"delay of what":    {map[string]string{"commitDelay": "5", "durability": "node"}, []string{"commitDelay", "100ms to 5m"}},
		"use prefix":       {map[string]string{"usePrefix": "true"}, []string{"usePrefix", "prefix"}},
	} {
		_, err := parseParams(test.given)
		if !storage.Is(err, storage.Invalid) {
			t.Errorf("%s: %v, want Invalid", what, err)
			continue
		}
		for _, word := range test.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %q does not say %q", what, err, word)
			}
		}
	}
}

// TestNamesAreOneEach: no name is in the table twice.
func TestNamesAreOneEach(t *testing.T) {
	seen := map[string]bool{pathName: true}
	once := func(name string) {
		if seen[name] {
			t.Errorf("%s is in the table twice", name)
		}
		seen[name] = true
	}
	for _, p := range parameters {
		once(p.name)
		for _, a := range p.aliases {
			once(a)
		}
		if p.values == "" || p.usual == "" || p.text == "" {
			t.Errorf("%s is not described", p.name)
		}
	}
	for _, f := range foreign {
		for _, name := range f.names {
			once(name)
		}
		if f.reason == "" || (f.accepts == nil) != (f.accepted == "") {
			t.Errorf("%v: not described", f.names)
		}
	}
}

// TestDocumentIsTheTable: make generate writes it.
func TestDocumentIsTheTable(t *testing.T) {
	got, err := os.ReadFile("PARAMETERS.md")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != ParametersDocument() {
		t.Error("PARAMETERS.md is not what the table says: run make generate")
	}
	for _, p := range parameters {
		if !strings.Contains(ParametersHelp(), "\n"+p.name+": ") && !strings.HasPrefix(ParametersHelp(), p.name+": ") {
			t.Errorf("the help leaves %s out", p.name)
		}
	}
}

func TestTemplates(t *testing.T) {
	claim := map[string]string{
		"csi.storage.k8s.io/pvc/name": "data", "csi.storage.k8s.io/pvc/namespace": "team-a", "csi.storage.k8s.io/pv/name": "pvc-1",
	}
	for given, want := range map[template]string{
		"x": "x", "${pvc.namespace}-${pvc.name}": "team-a-data", "${pv.name}/${pvc.name}": "pvc-1/data",
	} {
		if got, err := given.fill(claim); err != nil || got != want {
			t.Errorf("%s → %q, %v", given, got, err)
		}
	}
	_, err := template("${pvc.name}").fill(nil)
	if !storage.Is(err, storage.Invalid) || !strings.Contains(err.Error(), "--extra-create-metadata") {
		t.Errorf("without a claim: %v", err)
	}
}

// FuzzParameters: whatever is given is taken or refused as invalid, and what is
// taken can be taken again from what is kept.
func FuzzParameters(f *testing.F) {
	for _, s := range []string{"bucketName=photos\nonDelete=retain", "path=/buckets/a/b", "prefix=${pvc.name}", "uid=7\nfileMode=0644", "mounter=geesefs", "durability=node\ncommitDelay=2s", "durability=cluster", "x", "bucket=a\nbucketName=b", "replication=012\ndisk=SSD\ndataCenter=dc1", "ttl=5d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		given := map[string]string{}
		for line := range strings.SplitSeq(text, "\n") {
			name, value, _ := strings.Cut(line, "=")
			given[name] = value
		}
		s, err := parseParams(given)
		if err != nil {
			if !storage.Is(err, storage.Invalid) {
				t.Fatalf("%q: %v (%v)", text, err, storage.KindOf(err))
			}
			return
		}
		again, err := parseParams(s.kept)
		if err != nil || !maps.Equal(again.kept, s.kept) || again.bucket != s.bucket || again.prefix != s.prefix || again.onDelete != s.onDelete {
			t.Fatalf("%q: kept %v, taken again as %v, %v", text, s.kept, again.kept, err)
		}
		var want storage.Record
		if err := allot(&want, s, given); err == nil {
			if want.Bucket != "" && want.Bucket.Check() != nil || want.Prefix.CheckFolder() != nil {
				t.Fatalf("%q: bucket %q, folder %q", text, want.Bucket, want.Prefix)
			}
		} else if !storage.Is(err, storage.Invalid) {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
