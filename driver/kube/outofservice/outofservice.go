package outofservice

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/holdfast-csi/holdfast/driver/kube/claims"
	"github.com/holdfast-csi/holdfast/driver/kube/tell"
	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// every is how often all records are read: what is seen late counts late.
	every = 10 * time.Second
	// callTime bounds one look.
	callTime = time.Minute

	matter        = "out-of-service"
	reasonEnded   = "LeaseEnded"
	reasonRunning = "OutOfServiceNodeRuns"
)

// Deps are what a Releaser stands on.
type Deps struct {
	Claims  *claims.Claims
	Records storage.Records
	Tell    *tell.Teller
	Log     *slog.Logger
	// Every is how often it looks, 10 seconds unless set.
	Every time.Duration
}

// Releaser ends leases.
type Releaser struct {
	d     Deps
	nodes corelisters.NodeLister
	wake  chan struct{}

	seen storage.Sightings
	// next is when the first lease of a node that is given up can be over, as of the last
	// look.
	next time.Duration
	// given are the leases of nodes that were given up, as they were seen first after
	// that: one that is renewed since then is of a node that runs.
	given map[key]storage.Lease
}

type key struct {
	volume storage.VolumeID
	node   string
}

// New takes the informer of Nodes from a factory, which the caller starts.
func New(d Deps, factory informers.SharedInformerFactory) (*Releaser, error) {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	d.Every = cmp.Or(d.Every, every)
	nodes := factory.Core().V1().Nodes()
	r := &Releaser{d: d, nodes: nodes.Lister(), wake: make(chan struct{}, 1), given: map[key]storage.Lease{}}
	if err := nodes.Informer().SetTransform(slim); err != nil {
		return nil, fmt.Errorf("informer of Nodes: %w", err)
	}
	_, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(was, now any) {
			a, okA := was.(*corev1.Node)
			b, okB := now.(*corev1.Node)
			if okA && okB && !tainted(a) && tainted(b) {
				r.wakeUp()
			}
		},
		DeleteFunc: func(any) { r.wakeUp() },
	})
	if err != nil {
		return nil, fmt.Errorf("informer of Nodes: %w", err)
	}
	return r, nil
}

// slim keeps of a Node what is looked at: kubelets change the rest all the time.
func slim(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	s := &corev1.Node{ObjectMeta: n.ObjectMeta}
	s.ManagedFields, s.Annotations, s.Labels = nil, nil, nil
	s.Spec.Taints = n.Spec.Taints
	return s, nil
}

func (r *Releaser) wakeUp() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// tainted by an administrator who says that the machine is off.
func tainted(n *corev1.Node) bool {
	for _, t := range n.Spec.Taints {
		if t.Key == corev1.TaintNodeOutOfService {
			return true
		}
	}
	return false
}

// Run looks until ctx ends. The informers have to be synced: a Node that is not there
// counts as deleted.
func (r *Releaser) Run(ctx context.Context) error {
	for {
		r.next = r.d.Every
		if err := r.look(ctx); err != nil && ctx.Err() == nil {
			r.d.Log.WarnContext(ctx, "leases were not looked at", slog.Any("err", err))
		}
		wait := time.NewTimer(r.next) // somebody may be waiting for the volume
		select {
		case <-ctx.Done():
		case <-wait.C:
		case <-r.wake:
		}
		wait.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// look goes through all leases, of every node: that it has seen them for long enough is
// what it decides by.
func (r *Releaser) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	given := map[key]storage.Lease{}
	for record, err := range storage.RecordsAfter(ctx, r.d.Records, "") {
		if err != nil {
			return fmt.Errorf("list records: %w", err)
		}
		r.judge(ctx, &record, given)
	}
	r.given = given
	return nil
}

func (r *Releaser) judge(ctx context.Context, record *storage.Record, given map[key]storage.Lease) {
	var over, why []string
	for _, node := range record.Nodes() {
		left := r.seen.Left(record, node) // also of those that are not given up
		reason, err := r.givenUp(node)
		if err != nil {
			r.d.Log.WarnContext(ctx, "a Node was not looked up", slog.String("node", node), slog.Any("err", err))
			continue
		}
		if reason == "" {
			continue
		}
		if left == 0 {
			over, why = append(over, node), append(why, reason)
			continue
		}
		r.next = min(r.next, left)
		k, now := key{record.ID, node}, record.Leases[node]
		first, known := r.given[k]
		if !known {
			first = now
		}
		given[k] = first
		if known && first.Renewal != now.Renewal {
			r.tell(record.ID, func(c *corev1.PersistentVolumeClaim) {
				r.d.Tell.Trouble(c, matter+"/"+node, reasonRunning, fmt.Sprintf("%s, and it goes on renewing its lease of this volume, so it runs: it keeps the volume until it stops, or the volume is unstaged there", reason))
			})
		}
	}
	if len(over) > 0 {
		r.end(ctx, record, over, why)
	}
}

// givenUp says how a node was given up, "" when it was not.
func (r *Releaser) givenUp(node string) (string, error) {
	n, err := r.nodes.Get(node)
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Sprintf("node %s is deleted", node), nil
	case err != nil:
		return "", err
	case tainted(n):
		return fmt.Sprintf("node %s is out of service (taint %s)", node, corev1.TaintNodeOutOfService), nil
	}
	return "", nil
}

// end ends leases in the record as it was read: a renewal since then refuses it.
func (r *Releaser) end(ctx context.Context, record *storage.Record, nodes, why []string) {
	for _, node := range nodes {
		record.Return(node)
	}
	if _, err := r.d.Records.UpdateRecord(ctx, *record); err != nil {
		if !storage.Is(err, storage.Changed) && !storage.Is(err, storage.NotFound) && ctx.Err() == nil {
			r.d.Log.WarnContext(ctx, "the lease of a node that is given up was not ended", slog.String("volume", string(record.ID)), slog.Any("err", err))
		}
		return // the next look sees what is so
	}
	for i, node := range nodes {
		r.d.Log.WarnContext(ctx, "the lease of a node that is given up was ended", slog.String("volume", string(record.ID)), slog.String("holder", node), slog.Uint64("epoch", record.Epoch))
		r.tell(record.ID, func(c *corev1.PersistentVolumeClaim) {
			r.d.Tell.Over(c, matter+"/"+node)
			r.d.Tell.Note(c, reasonEnded, fmt.Sprintf("%s and silent: its lease of this volume was ended, and another node can have it. If it comes back, it overwrites nothing, and keeps aside what it had not committed", why[i]))
		})
	}
}

func (r *Releaser) tell(id storage.VolumeID, say func(*corev1.PersistentVolumeClaim)) {
	list, err := r.d.Claims.Of(id)
	if err != nil {
		r.d.Log.Warn("claims of a volume were not found", slog.String("volume", string(id)), slog.Any("err", err))
	}
	for _, c := range list {
		say(c)
	}
}
