package s3secret

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"

	"github.com/holdfast-csi/holdfast/driver/kube/claims"
	"github.com/holdfast-csi/holdfast/driver/kube/tell"
	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// refresh is how often the record of a volume is read again for each Secret. Old keys
	// work for an hour after a rotation unless it says otherwise.
	refresh = 15 * time.Second
	// refused is when a claim that got nothing is looked at again: the administrator may
	// have allowed it meanwhile, which nobody tells us.
	refused = time.Minute
	// workers bounds the claims that are worked on at once, callTime each.
	workers  = 4
	callTime = 30 * time.Second
	// patience is how many failures nobody is told of: a conflict, a Secret of an earlier
	// claim that is being collected, a filer that is started again.
	patience = 2
	// slowest is the longest pause after a failure.
	slowest = 2 * time.Minute
)

// Records reads what is known of a volume.
type Records interface {
	GetRecord(ctx context.Context, id storage.VolumeID) (storage.Record, error)
}

// Options say for whom Secrets are kept, and what stands in them. Namespaces may be
// empty: then every claim that asks is told how to get one.
type Options struct {
	Namespaces []string
	Endpoint   Endpoint
	// Own reports whether what is in a volume is its own: no other can have it too, and
	// it was not there before.
	Own func(*storage.Record) bool
	// Refresh is 15 seconds unless set.
	Refresh time.Duration
}

// Validate says whether the options can work.
func (o Options) Validate() error {
	for _, ns := range o.Namespaces {
		if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
			return storage.Errorf(storage.Invalid, "namespace for Secrets %q: %s", ns, strings.Join(problems, "; "))
		}
	}
	if o.Refresh < 0 {
		return storage.Errorf(storage.Invalid, "refresh of Secrets %v: must not be negative", o.Refresh)
	}
	if o.Own == nil {
		return storage.Errorf(storage.Invalid, "Own is missing")
	}
	return o.Endpoint.Validate()
}

// Deps are what a Keeper stands on.
type Deps struct {
	Client  kubernetes.Interface
	Claims  *claims.Claims
	Records Records
	Tell    *tell.Teller
	Log     *slog.Logger
}

// Keeper keeps the Secrets.
type Keeper struct {
	d Deps
	o Options

	// secrets are those with our label, by namespace.
	secrets map[string]cache.SharedIndexInformer
	queue   workqueue.TypedRateLimitingInterface[cache.ObjectName]
}

// New makes a Keeper. It has to be made before the informers of Claims are started.
func New(d Deps, o Options) (*Keeper, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	o.Refresh = cmp.Or(o.Refresh, refresh)
	k := &Keeper{d: d, o: o, secrets: map[string]cache.SharedIndexInformer{}}
	k.queue = workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](time.Second, slowest))
	if err := d.Claims.OnChange(k.queue.Add); err != nil {
		return nil, err
	}
	return k, nil
}

// watch prepares the watch of a namespace's Secrets: those with our label alone, since
// the others are nobody's business. Where the administrator has not given the right yet
// it fails and is tried again, and holds up no other.
func (k *Keeper) watch(ctx context.Context, namespace string) (cache.SharedIndexInformer, error) {
	f := informers.NewSharedInformerFactoryWithOptions(k.d.Client, 0, informers.WithNamespace(namespace), informers.WithTweakListOptions(onlyOurs))
	informer := f.Core().V1().Secrets().Informer()
	changed := func(obj any) {
		name, err := cache.DeletionHandlingObjectToName(obj)
		if claim, ok := strings.CutSuffix(name.Name, suffix); err == nil && ok {
			k.queue.Add(cache.NewObjectName(name.Namespace, claim))
		}
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: changed, UpdateFunc: func(_, now any) { changed(now) }, DeleteFunc: changed,
	})
	if err != nil {
		return nil, fmt.Errorf("watch Secrets of namespace %s: %w", namespace, err)
	}
	err = informer.SetWatchErrorHandlerWithContext(func(_ context.Context, _ *cache.Reflector, err error) {
		if ctx.Err() == nil {
			k.d.Log.WarnContext(ctx, "Secrets of a namespace cannot be watched; is the RoleBinding there?", slog.String("namespace", namespace), slog.Any("err", err))
		}
	})
	return informer, err
}

// Run keeps the Secrets until ctx ends. The informers of Claims have to be synced.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.queue.ShutDown()
	for _, ns := range k.o.Namespaces {
		informer, err := k.watch(ctx, ns)
		if err != nil {
			return err
		}
		k.secrets[ns] = informer
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	running := 0
	start := func(run func()) {
		running++
		go func() { run(); done <- struct{}{} }()
	}
	for _, informer := range k.secrets {
		start(func() { informer.RunWithContext(ctx) })
	}
	for range workers {
		start(func() {
			for k.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	cancel()
	k.queue.ShutDown()
	for range running {
		<-done
	}
	return ctx.Err()
}

// next works on one claim. False when there is none any more.
func (k *Keeper) next(ctx context.Context) bool {
	name, over := k.queue.Get()
	if over {
		return false
	}
	defer k.queue.Done(name)
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	after, err := k.reconcile(ctx, name)
	switch {
	case err != nil:
		k.queue.AddRateLimited(name)
	case after > 0:
		k.queue.Forget(name)
		k.queue.AddAfter(name, after+rand.N(after/4)) // not all at one moment
	default:
		k.queue.Forget(name)
	}
	return true
}

// allowed reports whether Secrets are kept in a namespace.
func (k *Keeper) allowed(namespace string) bool { return slices.Contains(k.o.Namespaces, namespace) }

// trouble is what a claim is told. The reason is the event's.
type trouble struct{ reason, message string }

func (t *trouble) Error() string { return t.message }

func troublef(reason, format string, args ...any) *trouble {
	return &trouble{reason, fmt.Sprintf(format, args...)}
}

// matter of the events.
const matter = "s3-secret"

// The reasons of events.
const (
	reasonWritten    = "S3SecretWritten"
	reasonRemoved    = "S3SecretRemoved"
	reasonInvalid    = "S3SecretInvalid"
	reasonNotAllowed = "S3SecretNotAllowed"
	reasonRefused    = "S3SecretRefused"
	reasonForeign    = "S3SecretForeign"
	reasonFailed     = "S3SecretFailed"
)

// reconcile makes the Secret of a claim what it should be, and says when to look again;
// 0 for never, unless something changes.
func (k *Keeper) reconcile(ctx context.Context, name cache.ObjectName) (after time.Duration, err error) {
	claim, err := k.d.Claims.Claim(name)
	if err != nil || claim == nil || claim.DeletionTimestamp != nil {
		return 0, err // what is there goes with the claim
	}
	after, err = k.serve(ctx, claim)
	if t, ok := err.(*trouble); ok { //nolint:errorlint // serve returns it unwrapped
		k.d.Tell.Trouble(claim, matter, t.reason, t.message)
		return after, nil
	}
	if err != nil {
		if k.queue.NumRequeues(name) >= patience && !errors.Is(ctx.Err(), context.Canceled) {
			k.d.Log.WarnContext(ctx, "the Secret of a claim was not kept", slog.String("namespace", claim.Namespace), slog.String("claim", claim.Name), slog.Any("err", err))
			k.d.Tell.Trouble(claim, matter, reasonFailed, fmt.Sprintf("Secret %s%s: %v", claim.Name, suffix, err))
		}
		return 0, err
	}
	k.d.Tell.Over(claim, matter)
	return after, nil
}

func (k *Keeper) serve(ctx context.Context, claim *corev1.PersistentVolumeClaim) (time.Duration, error) {
	want, err := asked(claim)
	if err != nil {
		return 0, &trouble{reasonInvalid, err.Error() + "; nothing is changed"}
	}
	if !k.allowed(claim.Namespace) {
		if !want {
			return 0, nil
		}
		return refused, troublef(reasonNotAllowed, "no Secrets for S3 are kept in namespace %s; an administrator allows it by adding the namespace to s3Secrets.namespaces of the Helm chart (or by --secret-namespace=%s of holdfast companion, and a RoleBinding there)", claim.Namespace, claim.Namespace)
	}
	if !want {
		return 0, k.remove(ctx, claim)
	}
	if problems := validation.IsDNS1123Subdomain(claim.Name + suffix); len(problems) > 0 {
		return 0, troublef(reasonInvalid, "there can be no Secret %s%s: %s", claim.Name, suffix, strings.Join(problems, "; "))
	}
	v, err := k.d.Claims.For(claim)
	if err != nil || v == nil {
		return 0, err // its binding is a change
	}
	r, err := k.d.Records.GetRecord(ctx, storage.VolumeID(v.Spec.CSI.VolumeHandle))
	if err != nil {
		return 0, fmt.Errorf("look up the volume: %w", err)
	}
	if r.Phase != storage.Ready {
		return 0, storage.Errorf(storage.Busy, "the volume is %s", r.Phase)
	}
	if why := refusal(claim, v, &r, k.o.Own(&r)); why != "" {
		if err := k.remove(ctx, claim); err != nil { // it was allowed before
			return 0, err
		}
		return refused, troublef(reasonRefused, "claim %s gets no Secret for S3: %s", claim.Name, why)
	}
	if err := k.write(ctx, claim, &r); err != nil {
		return refused, err
	}
	return k.o.Refresh, nil
}
