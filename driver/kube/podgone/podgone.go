package podgone

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// every is how often all inline volumes are looked at.
	every = 30 * time.Second
	// lookTime bounds one look, callTime one question.
	lookTime = 5 * time.Minute
	callTime = 10 * time.Second
)

// Deps are what a Watcher stands on.
type Deps struct {
	Client  kubernetes.Interface
	Records storage.Records
	Log     *slog.Logger
	// Every is how often it looks, half a minute unless set.
	Every time.Duration
}

// Watcher notes which pods are gone.
type Watcher struct{ d Deps }

// New makes a Watcher. No I/O.
func New(d Deps) *Watcher {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	d.Every = cmp.Or(d.Every, every)
	return &Watcher{d}
}

// Run looks until ctx ends, and returns its error then.
func (w *Watcher) Run(ctx context.Context) error {
	tick := time.NewTicker(w.d.Every)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.d.Log.WarnContext(ctx, "the pods of inline volumes were not looked at", slog.Any("err", err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// look asks for each pod. What fails for one does not keep the others from being asked for.
func (w *Watcher) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	pods, err := storage.InlinePods(ctx, w.d.Records)
	if err != nil {
		return fmt.Errorf("list inline volumes: %w", err)
	}
	var first error
	for _, p := range pods {
		if err := w.judge(ctx, p); err != nil && first == nil {
			first = fmt.Errorf("pod %s/%s: %w", p.Namespace, p.Name, err)
		}
	}
	return first
}

func (w *Watcher) judge(ctx context.Context, p storage.Pod) error {
	there, err := w.exists(ctx, p)
	if err != nil || there {
		return err
	}
	noted, err := storage.PodGone(ctx, w.d.Records, p.UID)
	if noted > 0 {
		w.d.Log.InfoContext(ctx, "a pod with inline volumes is gone", slog.String("pod", p.Namespace+"/"+p.Name), slog.String("uid", p.UID), slog.Int("volumes", noted))
	}
	return err
}

// exists asks the API server itself, not its cache of watches (resourceVersion unset), and
// by the right to list, which the companion has anyway. A pod of the same name and another
// UID is another pod.
func (w *Watcher) exists(ctx context.Context, p storage.Pod) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	list, err := w.d.Client.CoreV1().Pods(p.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, p.Name).String(),
	})
	if err != nil {
		return false, err
	}
	for i := range list.Items {
		if string(list.Items[i].UID) == p.UID {
			return true, nil
		}
	}
	return false, nil
}
