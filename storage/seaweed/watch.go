package seaweed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// watcher implements storage.Watcher by the filer's stream of changes.
type watcher struct {
	*Client
	root string
}

var _ storage.Watcher = (*watcher)(nil)

// lookback is how far before now, by the filer's clock, a subscription begins.
// Events seen twice do no harm.
const lookback = 5 * time.Second

// silence breaks a stream. A filer with nothing to tell says so every five
// seconds, and a connection whose other end is gone without a word looks just
// like one on which nothing happens; three of them may be late.
const silence = 17 * time.Second

var errSilent = errors.New("the stream of changes is silent")

// Watch implements storage.Watcher. The filer leaves out what carries our own
// signature.
//
// What was missed between two subscriptions is not asked for: a filer that was
// killed has forgotten the events of its last minute and gives no sign of that,
// so the caller doubts everything each time.
func (w *watcher) Watch(ctx context.Context, ready func(), each func(storage.Event)) error {
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	// It runs while the filer is waited for, and not while the caller is told.
	quiet := time.AfterFunc(silence, func() { cancel(errSilent) })
	defer quiet.Stop()
	broken := func(err error) error {
		if ctx.Err() == nil && errors.Is(context.Cause(bounded), errSilent) {
			err = storage.Errorf(storage.Unavailable, "%w for %v", errSilent, silence)
		} else {
			err = classify(ctx, err)
		}
		return fmt.Errorf("watch %s: %w", w.root, err)
	}
	root := w.root
	now, err := w.filerNow(bounded)
	if err != nil {
		return broken(err)
	}
	stream, err := w.filer.SubscribeMetadata(bounded, &filerpb.SubscribeMetadataRequest{
		ClientName: "holdfast", ClientId: rand.Int32(), ClientEpoch: 1, //nolint:gosec // an id, not a secret
		PathPrefix: root + "/", SinceNs: now.Add(-lookback).UnixNano(),
		Signature: w.signature, ClientSupportsIdleHeartbeat: true,
	})
	if err != nil {
		return broken(err)
	}
	// The stream is open when the filer has sent its headers or a first answer;
	// with nothing to tell that is a heartbeat.
	first := true
	for {
		quiet.Reset(silence)
		r, err := stream.Recv()
		quiet.Stop()
		if err != nil {
			return broken(err)
		}
		if first {
			first = false
			ready()
		}
		w.tell(root, r, each)
		for _, more := range r.GetEvents() {
			w.tell(root, more, each)
		}
	}
}

// filerNow is the filer's own time, which it tells with every listing: changes are
// stamped by it, and one whose clock is behind ours would leave out all that happens
// until it has come to where a subscription by our clock begins.
func (w *watcher) filerNow(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := w.filer.ListEntries(ctx, &filerpb.ListEntriesRequest{Directory: bucketsDir, Limit: 1})
	if err != nil {
		return time.Time{}, err
	}
	r, err := list.Recv()
	if err != nil && !errors.Is(err, io.EOF) {
		return time.Time{}, err
	}
	if ts := r.GetSnapshotTsNs(); ts != 0 {
		return time.Unix(0, ts), nil
	}
	return time.Now(), nil // a filer that does not tell
}

func (w *watcher) tell(root string, r *filerpb.SubscribeMetadataResponse, each func(storage.Event)) {
	n := r.GetEventNotification()
	if n == nil {
		return
	}
	var ev storage.Event
	if o := n.GetOldEntry(); o != nil {
		ev.Old = place(root, r.GetDirectory(), o)
	}
	if e := n.GetNewEntry(); e != nil {
		dir := n.GetNewParentPath()
		if dir == "" {
			dir = r.GetDirectory()
		}
		ev.New = place(root, dir, e)
	}
	if ev.Old != nil || ev.New != nil {
		each(ev)
	}
}

// place is nil for what lies outside the volume.
func place(root, dir string, e *filerpb.Entry) *storage.Place {
	p, ok := strings.CutPrefix(path.Join(dir, e.GetName()), root+"/")
	if !ok {
		return nil
	}
	at := fromWire(e)
	return storage.PlaceOf(storage.Path(p), &at)
}
