package companion

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"

	"github.com/holdfast-csi/holdfast/driver/kube/api"
	"github.com/holdfast-csi/holdfast/driver/kube/claims"
	"github.com/holdfast-csi/holdfast/driver/kube/health"
	"github.com/holdfast-csi/holdfast/driver/kube/outofservice"
	"github.com/holdfast-csi/holdfast/driver/kube/podgone"
	"github.com/holdfast-csi/holdfast/driver/kube/s3secret"
	"github.com/holdfast-csi/holdfast/driver/kube/tell"
	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// leaseName is the Lease that the working companion holds.
	leaseName = "holdfast-companion"
	// The times of the election are those of Kubernetes' own components: a companion
	// that died is followed by another one within some seconds more than leaseFor.
	leaseFor      = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryEvery    = 2 * time.Second
	// syncTime bounds the first listing of all that is watched.
	syncTime = 2 * time.Minute
	// perSecond and burst bound our requests of the API server.
	perSecond, burst = 20, 40
	// component is the source of our events.
	component = "holdfast"
)

// Options say which API server and which driver.
type Options struct {
	// Kubeconfig is a file; without one, what a pod is given is used.
	Kubeconfig string
	// Namespace of the companion, for its Lease.
	Namespace string
	// Identity tells companions apart, the pod's name; drawn when empty.
	Identity string
	// Driver is the name of the CSI driver.
	Driver  string
	Version string
	Secrets s3secret.Options
	// HealthEvery, LeasesEvery and PodsEvery are how often volumes, leases and the pods of
	// inline volumes are looked at; their packages' own when zero.
	HealthEvery, LeasesEvery, PodsEvery time.Duration
}

// Validate says whether the options can work.
func (o Options) Validate() error {
	if len(validation.IsDNS1123Label(o.Namespace)) > 0 {
		return storage.Errorf(storage.Invalid, "namespace of the companion %q: the name of a namespace is needed, for the Lease by which one of several works", o.Namespace)
	}
	if o.Driver == "" {
		return storage.Errorf(storage.Invalid, "the name of the CSI driver is missing")
	}
	return o.Secrets.Validate()
}

// Deps are what a companion stands on. Client may be nil: it is made from the options.
// Health lists what the controller finds wrong; it may be nil, too.
type Deps struct {
	Client  kubernetes.Interface
	Records storage.Records
	Reports storage.Reports
	Health  func(context.Context) (map[storage.VolumeID][]storage.Finding, error)
	Log     *slog.Logger
}

// Companion is the process.
type Companion struct {
	d Deps
	o Options
}

// New makes a companion. It connects to nothing yet.
func New(d Deps, o Options) (*Companion, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if o.Identity == "" {
		o.Identity = rand.Text()
	}
	if d.Client == nil {
		client, err := connect(o)
		if err != nil {
			return nil, err
		}
		d.Client = client
	}
	return &Companion{d: d, o: o}, nil
}

func connect(o Options) (kubernetes.Interface, error) {
	config, err := api.Config(o.Kubeconfig, "holdfast-companion/"+cmp.Or(o.Version, "dev"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = perSecond, burst
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("client of the API server: %w", err)
	}
	return client, nil
}

// Run works whenever it holds the Lease, until ctx ends.
func (c *Companion) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := c.term(ctx); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// term stands for election, and works until the Lease is lost. It is given up a moment
// before the last request has ended: what two companions could do at once is conditional
// or the same.
func (c *Companion) term(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	begun := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.o.Namespace, Name: leaseName},
			Client:     c.d.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: c.o.Identity},
		},
		LeaseDuration: leaseFor, RenewDeadline: renewDeadline, RetryPeriod: retryEvery,
		ReleaseOnCancel: true, Name: leaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(term context.Context) { begun <- term },
			OnStoppedLeading: func() {},
		},
	})
	if err != nil {
		return fmt.Errorf("election: %w", err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(ctx)
	}()
	select {
	case <-over: // never won, or lost before it began
		return nil
	case term := <-begun:
		c.d.Log.InfoContext(ctx, "this companion works now", slog.String("identity", c.o.Identity))
		err := c.work(term) //nolint:contextcheck // it is ctx, until the Lease is lost
		stop()
		<-over
		c.d.Log.InfoContext(ctx, "this companion works no more", slog.String("identity", c.o.Identity))
		return err
	}
}

// work does all jobs until ctx ends or one of them fails.
func (c *Companion) work(ctx context.Context) error {
	events := record.NewBroadcaster(record.WithContext(ctx))
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.d.Client.CoreV1().Events("")})
	recorder := events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: component})
	teller := tell.New(recorder, 0)

	factory := informers.NewSharedInformerFactory(c.d.Client, 0)
	known, err := claims.New(factory, c.o.Driver)
	if err != nil {
		return err
	}
	keeper, err := s3secret.New(s3secret.Deps{Client: c.d.Client, Claims: known, Records: c.d.Records, Tell: teller, Log: c.d.Log}, c.o.Secrets)
	if err != nil {
		return err
	}
	releaser, err := outofservice.New(outofservice.Deps{Claims: known, Records: c.d.Records, Tell: teller, Log: c.d.Log, Every: c.o.LeasesEvery}, factory)
	if err != nil {
		return err
	}
	watcher := health.New(health.Deps{Client: c.d.Client, Claims: known, Reports: c.d.Reports, Controller: c.d.Health, Tell: teller, Log: c.d.Log, Every: c.o.HealthEvery})
	pods := podgone.New(podgone.Deps{Client: c.d.Client, Records: c.d.Records, Log: c.d.Log, Every: c.o.PodsEvery})
	ctx, cancel := context.WithCancel(ctx)
	defer factory.Shutdown()
	defer cancel()
	factory.StartWithContext(ctx)
	if err := synced(ctx, factory); err != nil || ctx.Err() != nil {
		return err
	}
	jobs, ctx := errgroup.WithContext(ctx)
	jobs.Go(func() error { return keeper.Run(ctx) })
	jobs.Go(func() error { return releaser.Run(ctx) })
	jobs.Go(func() error { return watcher.Run(ctx) })
	jobs.Go(func() error { return pods.Run(ctx) })
	if err := jobs.Wait(); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// synced waits until the informers have all there is.
func synced(ctx context.Context, factory informers.SharedInformerFactory) error {
	bounded, cancel := context.WithTimeout(ctx, syncTime)
	defer cancel()
	for what, ok := range factory.WaitForCacheSync(bounded.Done()) {
		if !ok && ctx.Err() == nil {
			return storage.Errorf(storage.Unavailable, "the API server has not listed %v within %s: may the companion list and watch them?", what, syncTime)
		}
	}
	return nil
}
