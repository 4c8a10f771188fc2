package csisanity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
)

// overlap is how long old keys live in these tests: long enough for a client to
// read the new ones on a machine that is busy.
const overlap = 15 * time.Second

// rotated is `holdfast volume rotate-keys -o json`.
type rotated struct {
	Access  string `json:"access_key_id"`
	Retired []struct {
		Access string `json:"access_key_id"`
		Until  time.Time
	}
}

// Clients that read their keys again now and then never see a rotation, and the
// old keys are dead when it is over, also when the controller is killed meanwhile.
func TestRotateKeys(t *testing.T) {
	in := begin(t)
	apart(t) // a client that reads the new keys too late
	in.up(t)
	v := in.create(t, volumeName(t))
	v.put(t, "object", "content")
	load := v.load(t)

	old := *v
	upload := old.beginUpload(t, "parts")
	got := unmarshal[rotated](t, in.must(t, "volume", "rotate-keys", v.name, "--overlap", overlap.String(), "-o", "json"))
	if got.Access == old.Access || len(got.Retired) != 1 || got.Retired[0].Access != old.Access {
		t.Fatalf("rotated: %+v", got)
	}
	v.readKeys(t)
	if v.Access != got.Access || v.Secret == old.Secret {
		t.Errorf("credentials tell %s, the rotation %s", v.Access, got.Access)
	}
	tail := old.Access[len(old.Access)-4:]
	if text := in.must(t, "volume", "describe", v.name); !strings.Contains(text, "…"+tail+" works until") {
		t.Errorf("described without the old key:\n%s", text)
	}
	if err := onBucket(v.Bucket, "object")["get"](t.Context(), old.client()); err != nil {
		t.Errorf("the old key within the overlap: %v", err)
	}
	if err := syscall.Kill(in.mustStatus(t).component(t, "controller").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, 2*overlap+time.Minute, func() error { return stillWorks(t.Context(), &old) })
	if now := time.Now(); now.Before(got.Retired[0].Until) {
		t.Errorf("the old key ended at %s, before %s", now, got.Retired[0].Until)
	}
	eventually(t, time.Minute, func() error {
		if text := in.must(t, "volume", "describe", v.name); strings.Contains(text, "works until") {
			return fmt.Errorf("described with a key that is dead:\n%s", text)
		}
		return nil
	})

	// What was begun with the old key is refused to it, and not lost.
	part := &s3.UploadPartInput{
		Bucket: aws.String(v.Bucket), Key: aws.String("parts"), UploadId: upload, PartNumber: aws.Int32(2), Body: strings.NewReader("two"),
	}
	_, err := old.client().UploadPart(t.Context(), part)
	denied(t, "a part with the dead key", err)
	denied(t, "completion with the dead key", old.completeUpload(t.Context(), "parts", upload))
	if err := v.completeUpload(t.Context(), "parts", upload); err != nil {
		t.Errorf("completion with the new key: %v", err)
	}

	// At once: the command returns when the old key is dead.
	old = *v
	made := v.addKeyByHand(t)
	load.stop(t)
	in.must(t, "volume", "rotate-keys", v.name, "--overlap", "0")
	v.readKeys(t)
	denied(t, "the old key", onBucket(v.Bucket, "object")["get"](t.Context(), old.client()))
	denied(t, "a key that was added by hand", onBucket(v.Bucket, "object")["get"](t.Context(), made.client()))
	if err := onBucket(v.Bucket, "object")["get"](t.Context(), v.client()); err != nil {
		t.Errorf("the new key: %v", err)
	}

	in.fails(t, []string{"volume", "rotate-keys", "no-such"}, "no-such")
	in.fails(t, []string{"volume", "rotate-keys", v.name, "--overlap=-1s"}, "overlap", "-1s")
	in.fails(t, []string{"volume", "rotate-keys", v.name, "--overlap", "10000h"}, "overlap", "720h")
}

// addKeyByHand gives the volume's user a key that no record has.
func (v *volume) addKeyByHand(t *testing.T) *volume {
	t.Helper()
	more := *v
	more.Access, more.Secret = "BY"+rand.Text()[:18], (rand.Text() + rand.Text())[:40]
	said, err := v.in.shell(t.Context(), v.in.mustStatus(t), fmt.Sprintf("s3.accesskey.create -user holdfast-%s -access_key %s -secret_key %s", v.name, more.Access, more.Secret))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, func() error {
		err := onBucket(v.Bucket, "object")["get"](t.Context(), more.client())
		if err != nil {
			err = fmt.Errorf("the key is not taken: %w; weed shell said %v", err, said)
		}
		return err
	})
	return &more
}

// stillWorks is nil when the volume's keys are dead.
func stillWorks(ctx context.Context, v *volume) error {
	switch err := onBucket(v.Bucket, "object")["get"](ctx, v.client()); {
	case err == nil:
		return errors.New("the old key works")
	case !isDenied(err):
		return err
	}
	return nil
}

// readKeys reads the credentials again.
func (v *volume) readKeys(t *testing.T) {
	t.Helper()
	if err := json.Unmarshal([]byte(v.in.must(t, "volume", "credentials", v.name, "--format", "json")), v); err != nil {
		t.Fatal(err)
	}
}

func (v *volume) beginUpload(t *testing.T, key string) *string {
	t.Helper()
	up, err := v.client().CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: aws.String(v.Bucket), Key: aws.String(key)})
	if err != nil {
		t.Fatal(err)
	}
	_, err = v.client().UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: aws.String(v.Bucket), Key: aws.String(key), UploadId: up.UploadId, PartNumber: aws.Int32(1), Body: strings.NewReader("one"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return up.UploadId
}

// completeUpload makes an object of the first part.
func (v *volume) completeUpload(ctx context.Context, key string, upload *string) error {
	b := aws.String(v.Bucket)
	parts, err := v.client().ListParts(ctx, &s3.ListPartsInput{Bucket: b, Key: aws.String(key), UploadId: upload})
	etag := aws.String(`"f97c5d29941bfb1b2fdab0874906ab82"`) // MD5 of "one"
	if err == nil && len(parts.Parts) > 0 {
		etag = parts.Parts[0].ETag
	}
	_, err = v.client().CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: b, Key: aws.String(key), UploadId: upload,
		MultipartUpload: &types.CompletedMultipartUpload{Parts: []types.CompletedPart{{ETag: etag, PartNumber: aws.Int32(1)}}},
	})
	return err
}

// keyLoad writes and reads as clients do that read their keys again and again.
type keyLoad struct {
	mu     sync.RWMutex
	v      volume
	done   atomic.Int64
	cancel context.CancelFunc
	all    sync.WaitGroup
	failed chan error
}

// load begins at once.
func (v *volume) load(t *testing.T) *keyLoad {
	ctx, cancel := context.WithCancel(t.Context())
	l := &keyLoad{v: *v, cancel: cancel, failed: make(chan error, 16)}
	t.Cleanup(func() { cancel(); l.all.Wait() })
	for w := range 2 {
		l.all.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				l.fail(ctx, l.once(ctx, fmt.Sprintf("load-%d-%d", w, i%50)))
				l.done.Add(1)
			}
		})
	}
	l.all.Go(func() {
		for ctx.Err() == nil {
			out, err := v.in.run(ctx, "volume", "credentials", v.name, "--format", "json")
			if err == nil {
				next := *v
				err = json.Unmarshal([]byte(out.stdout), &next)
				l.mu.Lock()
				l.v = next
				l.mu.Unlock()
			}
			// The controller, which names the volume, is killed in between.
			if err != nil && !strings.Contains(err.Error(), "does not answer") {
				l.fail(ctx, err)
			}
		}
	})
	return l
}

func (l *keyLoad) fail(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil {
		return
	}
	select {
	case l.failed <- err:
	default:
	}
}

// once writes an object and reads it with the keys of that moment.
func (l *keyLoad) once(ctx context.Context, key string) error {
	l.mu.RLock()
	v := l.v
	l.mu.RUnlock()
	c := v.client()
	if _, err := c.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(v.Bucket), Key: aws.String(key), Body: strings.NewReader(key)}); err != nil {
		return fmt.Errorf("put: %w", err)
	}
	return onBucket(v.Bucket, key)["get"](ctx, c)
}

// stop ends the load, none of which may have failed.
func (l *keyLoad) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.all.Wait()
	close(l.failed)
	for err := range l.failed {
		t.Errorf("during the rotation: %v", err)
	}
	t.Logf("%d writes and reads during the rotation", l.done.Load())
	if l.done.Load() == 0 {
		t.Error("no load ran")
	}
}
