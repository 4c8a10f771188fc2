package seaweed_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/holdfast-csi/holdfast/s3client"
	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster"
	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
)

// gateway is S3 as the administrator has it.
func gateway(of *cluster.Cluster) *s3.Client {
	keys := of.AdminKeys()
	return s3.New(s3.Options{
		BaseEndpoint: aws.String(of.Endpoints().S3URL), Region: "us-east-1", UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(keys.Access, keys.Secret, ""),
	})
}

// emptyBucket makes a bucket that nothing was written to.
func emptyBucket(t *testing.T, of *cluster.Cluster, name storage.BucketName) {
	t.Helper()
	c, err := s3client.New(s3client.Options{Endpoint: of.Endpoints().S3URL, Keys: of.AdminKeys()})
	if err == nil {
		err = c.CreateBucket(t.Context(), name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func place(t *testing.T, c *seaweed.Client, name storage.BucketName, folder storage.Path, p storage.Placement) {
	t.Helper()
	if err := c.Place(t.Context(), name, folder, p); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Unplace(context.WithoutCancel(t.Context()), name, folder, p); err != nil {
			t.Error(err)
		}
	})
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// TestPlacedContent: what a mount and S3 write into a placed bucket or folder is on as
// many servers as the rule says, from the first byte on, and nothing is placed
// otherwise; what is beside it is as ever.
func TestPlacedContent(t *testing.T) {
	c, wire := open(t), gateway(weed)
	for what, folder := range map[string]storage.Path{"bucket": "", "folder": "a/b"} {
		t.Run(what, func(t *testing.T) {
			name := storage.BucketName("placed-" + what)
			emptyBucket(t, weed, name)
			place(t, c, name, folder, storage.Placement{Replication: "001", DiskType: storage.DefaultDisk})
			if err := c.Prepare(t.Context(), name, folder); err != nil {
				t.Fatal(err)
			}
			v := c.Folder(name, folder, "x")
			for _, size := range []int{10_000, 1 << 20} {
				chunk, err := v.Chunks.Write(t.Context(), "d/f", randomBytes(size))
				if err != nil {
					t.Fatal(err)
				}
				wantServers(t, c, fmt.Sprintf("%d bytes of a mount", size), chunk.ID, 2)
			}
			bucket, object := aws.String(string(name)), string(folder.Join("object"))
			put := func(key string) {
				t.Helper()
				if _, err := wire.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: aws.String(key), Body: bytes.NewReader(randomBytes(1 << 20))}); err != nil {
					t.Fatal(err)
				}
			}
			put(object)
			copied := string(folder.Join("copied"))
			if _, err := wire.CopyObject(t.Context(), &s3.CopyObjectInput{Bucket: bucket, Key: aws.String(copied), CopySource: aws.String(string(name) + "/" + object)}); err != nil {
				t.Fatal(err)
			}
			parts := string(folder.Join("parts"))
			inParts(t, wire, bucket, aws.String(parts))
			whole := c.Volume(name, "x")
			check := func(key string, want int) {
				t.Helper()
				e, err := whole.Files.Lookup(t.Context(), storage.Path(key))
				if err != nil || len(e.Chunks) == 0 {
					t.Fatalf("%s: %+v, %v", key, e, err)
				}
				for _, chunk := range e.Chunks {
					wantServers(t, c, key, chunk.ID, want)
				}
			}
			for _, key := range []string{object, copied, parts} {
				check(key, 2)
			}
			if folder != "" {
				put("a/bc/object")
				check("a/bc/object", 1)
			}
		})
	}
}

func inParts(t *testing.T, wire *s3.Client, bucket, key *string) {
	t.Helper()
	begun, err := wire.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		t.Fatal(err)
	}
	var parts []types.CompletedPart
	for n := range int32(2) {
		part, err := wire.UploadPart(t.Context(), &s3.UploadPartInput{
			Bucket: bucket, Key: key, UploadId: begun.UploadId, PartNumber: aws.Int32(n + 1), Body: bytes.NewReader(randomBytes(5 << 20)),
		})
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, types.CompletedPart{ETag: part.ETag, PartNumber: aws.Int32(n + 1)})
	}
	if _, err := wire.CompleteMultipartUpload(t.Context(), &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: key, UploadId: begun.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	}); err != nil {
		t.Fatal(err)
	}
}

// wantServers looks on how many servers a chunk is.
func wantServers(t *testing.T, c *seaweed.Client, what string, id storage.ChunkID, want int) {
	t.Helper()
	holders, err := c.Holders(t.Context(), id)
	if err != nil || len(holders) != want {
		t.Errorf("%s: chunk %s is on %v, %v, want %d servers", what, id, holders, err, want)
	}
}

// TestUsageCountsOneCopy: what a volume holds and what is left are of one copy.
func TestUsageCountsOneCopy(t *testing.T) {
	c := open(t)
	for name, replication := range map[storage.BucketName]string{"used-once": "000", "used-twice": "001"} {
		emptyBucket(t, weed, name)
		place(t, c, name, "", storage.Placement{Replication: replication})
		if err := c.Prepare(t.Context(), name, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := c.CreateRecord(t.Context(), storage.Record{ID: storage.VolumeID(name), Bucket: name, Capacity: 1 << 30, Access: storage.Shared, Phase: storage.Ready}); err != nil {
			t.Fatal(err)
		}
		v := c.Volume(name, storage.VolumeID(name))
		for range 3 {
			if _, err := v.Chunks.Write(t.Context(), "f", randomBytes(1<<20)); err != nil {
				t.Fatal(err)
			}
		}
		const want = 3 << 20
		deadline := time.Now().Add(90 * time.Second)
		for {
			u, err := v.Meter.Usage(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if u.Used >= want && u.Used < want+want/10 {
				break
			}
			if u.Used >= want || time.Now().After(deadline) {
				t.Fatalf("%s: %d bytes are used, want %d", name, u.Used, want)
			}
			<-time.After(200 * time.Millisecond)
		}
	}
}

// TestRulesOfOthers: they stay as they are, and one that is in the way is told of.
func TestRulesOfOthers(t *testing.T) {
	c := open(t)
	before, err := c.RawRules(t.Context())
	if err != nil && !storage.Is(err, storage.NotFound) {
		t.Fatal(err)
	}
	const theirs = `{"version":1,"locations":[{"locationPrefix":"/buckets/others/","fsync":true,"maxFileNameLength":200},{"locationPrefix":"/buckets/locked/","readOnly":true}]}`
	if err := c.PutRules(t.Context(), []byte(theirs)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if before == nil {
			before = []byte(`{}`)
		}
		if err := c.PutRules(context.WithoutCancel(t.Context()), before); err != nil {
			t.Error(err)
		}
	})
	p := storage.Placement{Replication: "001"}
	for _, name := range []storage.BucketName{"others", "locked"} {
		if err := c.Place(t.Context(), name, "", p); !storage.Is(err, storage.Exists) {
			t.Errorf("%s: %v, want Exists", name, err)
		}
		if got, found, err := c.Placed(t.Context(), name, ""); err != nil || !found || !got.IsZero() {
			t.Errorf("%s: %v, %v, %v", name, got, found, err)
		}
		if err := c.Unplace(t.Context(), name, "", p); err != nil {
			t.Error(err)
		}
	}
	if err := c.Place(t.Context(), "ours", "", p); err != nil {
		t.Fatal(err)
	}
	if err := c.Unplace(t.Context(), "ours", "", p); err != nil {
		t.Fatal(err)
	}
	now, err := c.RawRules(t.Context())
	var got, want map[string]any
	if err != nil || json.Unmarshal(now, &got) != nil || json.Unmarshal([]byte(theirs), &want) != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%s, %v\nwant %s", now, err, theirs)
	}
}

// TestPlacementJudgedAsWeedDoes: what we say of a topology before anything is written is
// what the master does when something is.
func TestPlacementJudgedAsWeedDoes(t *testing.T) {
	of := clustertest.Start(t, func(o *cluster.Options) {
		o.VolumeServers = 5
		o.Places = []cluster.Place{
			{DataCenter: "dc1", Rack: "r1"},
			{DataCenter: "dc1", Rack: "r2"},
			{DataCenter: "dc1", Rack: "r2"},
			{DataCenter: "dc2", Rack: "r1"},
			{DataCenter: "dc2", Rack: "r1", Disk: "ssd"},
		}
	})
	config, err := of.TLS()
	if err != nil {
		t.Fatal(err)
	}
	// What cannot be placed is asked for again until this is over.
	c, err := seaweed.Open(t.Context(), seaweed.Options{Filer: of.Endpoints().FilerGRPC, TLS: config, CallTimeout: 6 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	topology, err := c.Topology(t.Context())
	if err != nil || len(topology) != 5 {
		t.Fatalf("%+v, %v", topology, err)
	}
	// All five are on this machine's one disk, and each tells of all of it.
	ssd, known := topology.Free(storage.Placement{DiskType: "ssd"})
	hdd, alsoKnown := topology.Free(storage.Placement{DiskType: "hdd"})
	if once, all := ssd-ssd/20, ssd+ssd/20; !known || !alsoKnown || ssd <= 0 || hdd < 4*once || hdd > 4*all {
		t.Errorf("free: %d bytes of ssd, %d of hdd on four servers", ssd, hdd)
	}
	at := func(servers ...int) (list []string) {
		for _, i := range servers {
			list = append(list, of.Endpoints().VolumeHTTP[i])
		}
		return list
	}
	for i, test := range []struct {
		storage.Placement
		// among are the servers that may have it; nil when it cannot be placed.
		among []string
	}{
		{storage.Placement{Replication: "000"}, at(0, 1, 2, 3)},
		{storage.Placement{Replication: "001"}, at(1, 2)},
		{storage.Placement{Replication: "010"}, at(0, 1, 2)},
		{storage.Placement{Replication: "011"}, nil}, // there are three servers in two racks
		{storage.Placement{Replication: "002"}, nil},
		{storage.Placement{Replication: "100"}, at(0, 1, 2, 3)},
		{storage.Placement{Replication: "110"}, at(0, 1, 2, 3)},
		{storage.Placement{Replication: "101"}, at(1, 2, 3)},
		{storage.Placement{Replication: "200"}, nil},
		{storage.Placement{DiskType: "ssd"}, at(4)},
		{storage.Placement{DiskType: "ssd", Replication: "001"}, nil},
		{storage.Placement{DiskType: "nvme", Replication: "000"}, nil},
		{storage.Placement{DataCenter: "dc2"}, at(3)},
		{storage.Placement{DataCenter: "dc2", DiskType: "ssd"}, at(4)},
		{storage.Placement{DataCenter: "dc1", Replication: "010"}, at(0, 1, 2)},
		{storage.Placement{DataCenter: "dc3"}, nil},
	} {
		t.Run(test.String(), func(t *testing.T) {
			t.Parallel()
			if err := topology.Check(test.Placement); (err == nil) != (test.among != nil) {
				t.Errorf("judged %v", err)
			}
			name := storage.BucketName(fmt.Sprintf("judged-%d", i))
			emptyBucket(t, of, name)
			if err := c.Place(t.Context(), name, "", test.Placement); err != nil {
				t.Fatal(err)
			}
			chunk, err := c.Volume(name, "x").Chunks.Write(t.Context(), "f", randomBytes(300<<10))
			if err != nil {
				if test.among != nil {
					t.Errorf("not written: %v", err)
				}
				return
			}
			holders, err := c.Holders(t.Context(), chunk.ID)
			t.Logf("on %v", holders)
			switch {
			case err != nil:
				t.Error(err)
			case test.among == nil && test.DataCenter == "": // weed goes elsewhere than asked for
				t.Errorf("written to %v", holders)
			case test.among != nil && len(holders) != max(test.Copies(), 1):
				t.Errorf("written to %v, want %d servers", holders, test.Copies())
			}
			for _, h := range holders {
				if test.among != nil && !slices.Contains(test.among, h) {
					t.Errorf("written to %v, want some of %v", holders, test.among)
				}
			}
		})
	}
}

// TestOneServer: what needs two is refused where there is one.
func TestOneServer(t *testing.T) {
	c := openCluster(t, clustertest.Start(t, func(o *cluster.Options) { o.VolumeServers = 1 }))
	topology, err := c.Topology(t.Context())
	if err != nil || len(topology) != 1 {
		t.Fatalf("%+v, %v", topology, err)
	}
	if err := topology.Check(storage.Placement{Replication: "000"}); err != nil {
		t.Error(err)
	}
	if err := topology.Check(storage.Placement{Replication: "001"}); !storage.Is(err, storage.Invalid) || !strings.Contains(err.Error(), "000 is possible now") {
		t.Error(err)
	}
}

// TestServerAway: who is away is not counted, and with one server more than there are
// copies writes go on without it.
func TestServerAway(t *testing.T) {
	of := clustertest.Start(t, func(o *cluster.Options) { o.VolumeServers = 3 })
	c := openCluster(t, of)
	emptyBucket(t, of, "away")
	twice := storage.Placement{Replication: "001"}
	place(t, c, "away", "", twice)
	if err := c.Prepare(t.Context(), "away", ""); err != nil {
		t.Fatal(err)
	}
	v := c.Volume("away", "x")
	write := func() []string {
		t.Helper()
		chunk, err := v.Chunks.Write(t.Context(), "f", randomBytes(300<<10))
		if err != nil {
			t.Fatal(err)
		}
		holders, err := c.Holders(t.Context(), chunk.ID)
		if err != nil || len(holders) != 2 {
			t.Fatalf("on %v, %v", holders, err)
		}
		return holders
	}
	// One that has what is written to first.
	victim := fmt.Sprintf("volume%d", slices.Index(of.Endpoints().VolumeHTTP, write()[0])+1)
	ctx, stop := context.WithCancel(t.Context())
	killed := make(chan struct{})
	go func() { // it is started again each time
		defer close(killed)
		for ctx.Err() == nil {
			for _, p := range of.Status() {
				if p.Name == victim && p.Running {
					_ = syscall.Kill(p.PID, syscall.SIGKILL)
				}
			}
			<-time.After(20 * time.Millisecond)
		}
	}()
	defer func() { stop(); <-killed }()
	deadline := time.Now().Add(20 * time.Second)
	for {
		topology, err := c.Topology(t.Context())
		if err == nil && len(topology) == 2 {
			if err := topology.Check(twice); err != nil {
				t.Errorf("two copies on two servers: %v", err)
			}
			if err := topology.Check(storage.Placement{Replication: "002"}); !storage.Is(err, storage.Invalid) {
				t.Errorf("three copies on two servers: %v", err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is away, and the master says %+v, %v", victim, topology, err)
		}
		<-time.After(100 * time.Millisecond)
	}
	for range 3 {
		write()
	}
}
