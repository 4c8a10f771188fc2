package issuer

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// passEvery is seconds and not hours so that a Secret that was deleted is back
	// before the pods that wait for it are noticed.
	passEvery = 10 * time.Second
	// passTimeout bounds a pass.
	passTimeout = 30 * time.Second
	// tries is how often one Secret is written in a pass while another issuer, or a
	// person, changes it.
	tries = 5
	// readyFor is how long a pass that went well counts.
	readyFor = time.Minute
)

// The marks of what this package has made.
const (
	managedByLabel = "app.kubernetes.io/managed-by"
	managedBy      = "holdfast-issuer"
	partLabel      = "holdfast.io/part"
)

// The reasons of events.
const (
	reasonLost    = "KeysLost"
	reasonForeign = "ForeignSecret"
	reasonFailed  = "KeysNotMade"
	reasonEnding  = "AuthorityEnding"
)

// Secrets is client-go's, of one namespace.
type Secrets interface {
	Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.Secret, error)
	Create(ctx context.Context, s *corev1.Secret, o metav1.CreateOptions) (*corev1.Secret, error)
	Update(ctx context.Context, s *corev1.Secret, o metav1.UpdateOptions) (*corev1.Secret, error)
}

// Keyring says what shall stand in the Secrets, see storage/cluster.
type Keyring interface {
	// Names of the parts, each after those that it is made from.
	Names() []string
	// Roots are those that cannot be made again as they were.
	Roots() []string
	// Make returns a part as it shall be; have is what is there of it, nil for nothing,
	// all are the others. The same again changes nothing.
	Make(part string, have map[string][]byte, all map[string]map[string][]byte, now time.Time) (map[string][]byte, error)
	// Lost says what it means that a part is gone, empty where that does no harm.
	Lost(part string, all map[string]map[string][]byte) string
	// Warning of what is going to be wrong, empty where there is nothing.
	Warning(all map[string]map[string][]byte, now time.Time) string
}

// Deps are what an Issuer stands on.
type Deps struct {
	Secrets Secrets
	Keyring Keyring
	// Warn makes a warning event about a Secret; nil makes none.
	Warn func(s *corev1.Secret, reason, message string)
	Log  *slog.Logger
}

// Options of an Issuer. Namespace and Prefix are needed.
type Options struct {
	Namespace string
	// Prefix begins each Secret's name: PREFIX-PART.
	Prefix string
	// Owner is what the Secrets but the roots go with; nil for nothing.
	Owner *metav1.OwnerReference
	// Every is the time between two passes; 0 means ten seconds.
	Every time.Duration
	// Now is the clock; the system's when nil.
	Now func() time.Time
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if why := validation.IsDNS1123Label(o.Namespace); len(why) > 0 {
		return storage.Errorf(storage.Invalid, "namespace %q: %s", o.Namespace, why[0])
	}
	if why := validation.IsDNS1123Label(o.Prefix); len(why) > 0 {
		return storage.Errorf(storage.Invalid, "prefix %q: %s", o.Prefix, why[0])
	}
	if o.Every < 0 {
		return storage.Errorf(storage.Invalid, "time between two passes %s: must not be negative", o.Every)
	}
	return nil
}

// Issuer keeps the Secrets.
type Issuer struct {
	secrets Secrets
	keyring Keyring
	warn    func(*corev1.Secret, string, string)
	log     *slog.Logger

	// Fixed after New.
	o     Options
	roots []string

	mu struct {
		sync.Mutex
		// told is what was said of each Secret, so that it is said once.
		told map[string]string
		// passed is when the last pass that went well ended.
		passed time.Time
	}
}

// New makes an issuer. No I/O.
func New(d Deps, o Options) (*Issuer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	o.Every = cmp.Or(o.Every, passEvery)
	if o.Now == nil {
		o.Now = time.Now
	}
	i := &Issuer{secrets: d.Secrets, keyring: d.Keyring, warn: d.Warn, log: d.Log, o: o, roots: d.Keyring.Roots()}
	if i.warn == nil {
		i.warn = func(*corev1.Secret, string, string) {}
	}
	if i.log == nil {
		i.log = slog.New(slog.DiscardHandler)
	}
	i.mu.told = map[string]string{}
	return i, nil
}

// Run makes passes until ctx ends, and returns its error then.
func (i *Issuer) Run(ctx context.Context) error {
	tick := time.NewTicker(i.o.Every)
	defer tick.Stop()
	for {
		err := i.Pass(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		i.tell(nil, "", "pass", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// Ready says why the Secrets may not be as they shall be; nil when a pass went well
// lately.
func (i *Issuer) Ready() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.o.Now().Sub(i.mu.passed) > readyFor {
		return storage.Errorf(storage.Unavailable, "no pass over the Secrets went well for %s", readyFor)
	}
	return nil
}

// Pass looks at all Secrets once and puts them right. What is wrong with one of them is
// told, and does not keep the others from being made.
func (i *Issuer) Pass(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, passTimeout)
	defer cancel()
	names := i.keyring.Names()
	there := make(map[string]*corev1.Secret, len(names))
	all := make(map[string]map[string][]byte, len(names))
	for _, part := range names {
		s, err := i.get(ctx, part)
		if err != nil {
			return err
		}
		if s != nil {
			there[part], all[part] = s, s.Data
		}
	}
	var first error
	for at, part := range names {
		// They are made in this order, so whoever misses one and has made a later one
		// has lost it; of a new installation nothing is lost.
		lived := slices.ContainsFunc(names[at+1:], func(later string) bool { return ours(there[later], later) })
		s, data, err := i.settle(ctx, part, there[part], all, lived)
		if ctx.Err() != nil {
			return fmt.Errorf("secret %s: %w", i.name(part), ctx.Err())
		}
		if data != nil {
			all[part] = data
		}
		i.tell(s, reasonFailed, part, err)
		if first == nil {
			first = err
		}
		if err != nil && slices.Contains(i.roots, part) {
			return first // the rest would be made from nothing
		}
	}
	if first != nil {
		return first
	}
	var ending error
	if why := i.keyring.Warning(all, i.o.Now()); why != "" {
		ending = storage.Errorf(storage.Other, "%s", why)
	}
	i.tell(there[names[0]], reasonEnding, "ending", ending)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.mu.passed = i.o.Now()
	return nil
}

// settle makes one Secret as it shall be, and returns it with what stands in it.
func (i *Issuer) settle(ctx context.Context, part string, s *corev1.Secret, all map[string]map[string][]byte, lived bool) (*corev1.Secret, map[string][]byte, error) {
	for range tries {
		var have map[string][]byte
		if s != nil {
			have = s.Data
		}
		want, err := i.keyring.Make(part, have, all, i.o.Now())
		if err != nil {
			return s, nil, fmt.Errorf("secret %s: %w", i.name(part), err)
		}
		written, err := i.write(ctx, part, s, want, all, lived)
		switch {
		case err == nil:
			return written, want, nil
		case apierrors.IsAlreadyExists(err), apierrors.IsConflict(err), apierrors.IsNotFound(err):
			// Somebody was faster.
			if s, err = i.get(ctx, part); err != nil {
				return nil, nil, err
			}
		default:
			return s, have, err
		}
	}
	return s, nil, storage.Errorf(storage.Busy, "Secret %s: others change it all the time", i.name(part))
}

// write brings what is wanted into a Secret, s or a new one.
func (i *Issuer) write(ctx context.Context, part string, s *corev1.Secret, want map[string][]byte, all map[string]map[string][]byte, lived bool) (*corev1.Secret, error) {
	if s == nil {
		lost := ""
		if lived {
			lost = i.keyring.Lost(part, all)
		}
		made, err := i.secrets.Create(ctx, i.secret(part, want), metav1.CreateOptions{})
		if err != nil {
			return nil, fmt.Errorf("make Secret %s: %w", i.name(part), err)
		}
		i.log.Info("Secret made", "secret", made.Name)
		if lost != "" {
			i.log.Error("Secret was deleted", "secret", made.Name, "err", lost)
			i.warn(made, reasonLost, fmt.Sprintf("Secret %s was deleted: %s", made.Name, lost))
		}
		return made, nil
	}
	same := maps.EqualFunc(s.Data, want, bytes.Equal)
	if !ours(s, part) {
		if same {
			return s, nil // somebody brought one that is good
		}
		err := storage.Errorf(storage.Exists, "Secret %s was made by somebody else and is not what is needed: it is left alone; delete it, and the right one is made", s.Name)
		return nil, err
	}
	fresh := i.secret(part, want)
	if same && slices.EqualFunc(s.OwnerReferences, fresh.OwnerReferences, sameOwner) {
		return s, nil
	}
	s = s.DeepCopy()
	s.Data, s.OwnerReferences = want, fresh.OwnerReferences
	changed, err := i.secrets.Update(ctx, s, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("change Secret %s: %w", s.Name, err)
	}
	i.log.Info("Secret changed", "secret", s.Name)
	return changed, nil
}

// ours reports whether a Secret, which may be nil, is one that this package has made.
func ours(s *corev1.Secret, part string) bool {
	return s != nil && s.Labels[managedByLabel] == managedBy && s.Labels[partLabel] == part
}

func sameOwner(a, b metav1.OwnerReference) bool { return a.UID == b.UID }

// secret is a part as an object.
func (i *Issuer) secret(part string, data map[string][]byte) *corev1.Secret {
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: i.o.Namespace, Name: i.name(part),
			Labels: map[string]string{managedByLabel: managedBy, partLabel: part},
		},
		Type: corev1.SecretTypeOpaque,
		Data: data,
	}
	if i.o.Owner != nil && !slices.Contains(i.roots, part) {
		s.OwnerReferences = []metav1.OwnerReference{*i.o.Owner}
	}
	return s
}

func (i *Issuer) name(part string) string { return i.o.Prefix + "-" + part }

// get returns a part's Secret, nil where there is none.
func (i *Issuer) get(ctx context.Context, part string) (*corev1.Secret, error) {
	s, err := i.secrets.Get(ctx, i.name(part), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Secret %s: %w", i.name(part), err)
	}
	return s, nil
}

// tell logs an error, and makes an event of it where there is an object, unless the
// same was said the last time.
func (i *Issuer) tell(s *corev1.Secret, reason, about string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	i.mu.Lock()
	before := i.mu.told[about]
	i.mu.told[about] = text
	i.mu.Unlock()
	if text == before || err == nil {
		return
	}
	i.log.Error("the Secrets are not as they shall be", "op", about, "err", err)
	if s == nil {
		return
	}
	if storage.Is(err, storage.Exists) {
		reason = reasonForeign
	}
	i.warn(s, reason, text)
}
