package issuer

import (
	"context"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

var secretResource = schema.GroupResource{Resource: "secrets"}

// fakeSecrets is one namespace of the API server. Unlike client-go's fake it knows
// resource versions: an update of what was read too early is refused.
type fakeSecrets struct {
	mu struct {
		sync.Mutex
		all     map[string]*corev1.Secret
		version int
		writes  int
		// fail is what each reading answers with, when set.
		fail error
	}
	// before is called ahead of each write, outside the lock.
	before func(verb, name string)
}

func newFakeSecrets() *fakeSecrets {
	f := &fakeSecrets{}
	f.mu.all = map[string]*corev1.Secret{}
	return f
}

func (f *fakeSecrets) Get(_ context.Context, name string, _ metav1.GetOptions) (*corev1.Secret, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.fail != nil {
		return nil, f.mu.fail
	}
	s, ok := f.mu.all[name]
	if !ok {
		return nil, apierrors.NewNotFound(secretResource, name)
	}
	return s.DeepCopy(), nil
}

func (f *fakeSecrets) Create(_ context.Context, s *corev1.Secret, _ metav1.CreateOptions) (*corev1.Secret, error) {
	if f.before != nil {
		f.before("create", s.Name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.mu.all[s.Name]; ok {
		return nil, apierrors.NewAlreadyExists(secretResource, s.Name)
	}
	s = s.DeepCopy()
	s.UID = types.UID("uid-" + s.Name)
	return f.putLocked(s), nil
}

func (f *fakeSecrets) Update(_ context.Context, s *corev1.Secret, _ metav1.UpdateOptions) (*corev1.Secret, error) {
	if f.before != nil {
		f.before("update", s.Name)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	have, ok := f.mu.all[s.Name]
	switch {
	case !ok:
		return nil, apierrors.NewNotFound(secretResource, s.Name)
	case s.ResourceVersion != have.ResourceVersion:
		return nil, apierrors.NewConflict(secretResource, s.Name, nil)
	}
	return f.putLocked(s.DeepCopy()), nil
}

func (f *fakeSecrets) putLocked(s *corev1.Secret) *corev1.Secret {
	f.mu.version++
	f.mu.writes++
	s.ResourceVersion = strconv.Itoa(f.mu.version)
	f.mu.all[s.Name] = s
	return s.DeepCopy()
}

// put is somebody else's change.
func (f *fakeSecrets) put(s *corev1.Secret) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.putLocked(s.DeepCopy())
}

// failing has each reading fail, until it is called with nil.
func (f *fakeSecrets) failing(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.fail = err
}

func (f *fakeSecrets) remove(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.mu.all, name)
}

func (f *fakeSecrets) writes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.writes
}
