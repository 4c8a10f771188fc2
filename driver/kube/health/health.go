package health

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-csi/holdfast/driver/kube/claims"
	"github.com/holdfast-csi/holdfast/driver/kube/tell"
	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// every is how often reports are read.
	every = 15 * time.Second
	// controllerEvery is how many of those looks the controller is asked once: it looks
	// at every volume then.
	controllerEvery = 4
	// silentFor is how many reports a node may miss until what it said says nothing more.
	silentFor = 4
	// gone is in how many looks a trouble has to be missing to be over: one that comes and
	// goes is not told each time.
	gone = 2
	// reasonWell is the reason of the event at the end of a trouble.
	reasonWell = "Well"
	// callTime bounds one look.
	callTime = time.Minute
)

// Deps are what a Watcher stands on. Controller lists what the controller finds wrong;
// nil when nobody can be asked.
type Deps struct {
	Client     kubernetes.Interface
	Claims     *claims.Claims
	Reports    storage.Reports
	Controller func(context.Context) (map[storage.VolumeID][]storage.Finding, error)
	Tell       *tell.Teller
	Log        *slog.Logger
	// Every is how often it looks, 15 seconds unless set.
	Every time.Duration
}

// trouble is one thing that is wrong with a volume, by who says it: a node, or the
// controller with the empty name.
type trouble struct {
	volume       storage.VolumeID
	node, reason string
}

func (t trouble) matter() string { return "health/" + t.node + "/" + t.reason }

// Watcher tells it.
type Watcher struct {
	d Deps

	looks int
	// active are troubles that were seen, and in how many looks they have been missing.
	active map[trouble]int
	beats  map[string]beat
}

// beat is the last one of a node, and since when it stands still by this clock.
type beat struct {
	number uint64
	since  time.Time
}

// New makes a Watcher.
func New(d Deps) *Watcher {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	d.Every = cmp.Or(d.Every, every)
	return &Watcher{d: d, active: map[trouble]int{}, beats: map[string]beat{}}
}

// Run looks until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.d.Every)
	defer tick.Stop()
	for {
		w.look(ctx)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (w *Watcher) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	if reports, err := w.d.Reports.ListReports(ctx); err != nil {
		w.missed(ctx, "reports of the nodes", err)
	} else {
		w.nodes(ctx, reports)
	}
	if w.d.Controller != nil && w.looks%controllerEvery == 0 {
		if found, err := w.d.Controller(ctx); err != nil {
			w.missed(ctx, "what the controller finds", err)
		} else {
			w.judge(ctx, "", found)
		}
	}
	w.looks++
}

func (w *Watcher) missed(ctx context.Context, what string, err error) {
	if ctx.Err() == nil {
		w.d.Log.WarnContext(ctx, "health of volumes is not known", slog.String("what", what), slog.Any("err", err))
	}
}

// nodes judges what nodes report. What one said that is silent is neither told again nor
// told to be over: nobody knows.
func (w *Watcher) nodes(ctx context.Context, reports []storage.Report) {
	there := map[string]bool{}
	for _, r := range reports {
		there[r.Node] = true
		last, known := w.beats[r.Node]
		if !known || last.number != r.Beat {
			last = beat{r.Beat, time.Now()}
			w.beats[r.Node] = last
		}
		if len(r.Volumes) > 0 && time.Since(last.since) > silentFor*cmp.Or(r.Every, storage.LeaseFor/3) {
			w.forget(r.Node)
			continue
		}
		w.judge(ctx, r.Node, r.Volumes)
	}
	for node := range w.beats {
		if !there[node] {
			delete(w.beats, node)
			w.forget(node)
		}
	}
}

func (w *Watcher) forget(node string) {
	for t := range w.active {
		if t.node == node {
			delete(w.active, t)
		}
	}
}

// judge tells what one source says, and what it says no more.
func (w *Watcher) judge(ctx context.Context, node string, found map[storage.VolumeID][]storage.Finding) {
	now := map[trouble]bool{}
	for id, list := range found {
		for _, f := range list {
			t := trouble{id, node, f.Reason}
			now[t], w.active[t] = true, 0
			w.each(ctx, t, func(about tell.Object) bool { return w.d.Tell.Trouble(about, t.matter(), f.Reason, at(node)+f.Message) })
		}
	}
	for t := range w.active {
		if t.node != node || now[t] {
			continue
		}
		if w.active[t]++; w.active[t] < gone {
			continue
		}
		delete(w.active, t)
		w.each(ctx, t, func(about tell.Object) bool {
			return w.d.Tell.Well(about, t.matter(), reasonWell, at(node)+"the volume is not "+t.reason+" any more")
		})
	}
}

func at(node string) string {
	if node == "" {
		return ""
	}
	return "on node " + node + ": "
}

// each has something told about the claims of a volume, and, where that was news, about
// the pods that have them on the node.
func (w *Watcher) each(ctx context.Context, t trouble, say func(tell.Object) bool) {
	list, err := w.d.Claims.Of(t.volume)
	if err != nil {
		w.missed(ctx, "claims of a volume", err)
		return
	}
	for _, claim := range list {
		if !say(claim) || t.node == "" {
			continue
		}
		pods, err := w.pods(ctx, claim, t.node)
		if err != nil {
			w.missed(ctx, "pods of a claim", err)
		}
		for i := range pods {
			say(&pods[i])
		}
	}
}

// pods are those of a node that have a claim. They are asked for when there is news: a
// watch would hold every pod of the cluster.
func (w *Watcher) pods(ctx context.Context, claim *corev1.PersistentVolumeClaim, node string) ([]corev1.Pod, error) {
	list, err := w.d.Client.CoreV1().Pods(claim.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("pods of namespace %s on node %s: %w", claim.Namespace, node, err)
	}
	var have []corev1.Pod
	for _, pod := range list.Items {
		if pod.Spec.NodeName == node && uses(&pod, claim) {
			have = append(have, pod)
		}
	}
	return have, nil
}

func uses(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	for _, v := range pod.Spec.Volumes {
		switch {
		case v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name:
			return true
		case v.Ephemeral != nil && metav1.IsControlledBy(claim, pod):
			return pod.Name+"-"+v.Name == claim.Name
		}
	}
	return false
}
