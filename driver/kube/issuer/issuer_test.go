package issuer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/holdfast-csi/holdfast/storage"
)

// fakeKeyring has one root and two parts that follow from it. Each root that it makes is
// another one.
type fakeKeyring struct {
	mu   sync.Mutex
	made int

	warning string
}

func (k *fakeKeyring) Names() []string { return []string{"root", "a", "b"} }
func (k *fakeKeyring) Roots() []string { return []string{"root"} }

func (k *fakeKeyring) Make(part string, have map[string][]byte, all map[string]map[string][]byte, now time.Time) (map[string][]byte, error) {
	if part != "root" {
		root := all["root"]["key"]
		if root == nil {
			return nil, storage.Errorf(storage.Corrupt, "no root")
		}
		return map[string][]byte{"cert": fmt.Appendf(nil, "%s of %s, %s", part, root, now.Format(time.DateOnly))}, nil
	}
	if key := have["key"]; key != nil {
		if string(key) == "damaged" {
			return nil, storage.Errorf(storage.Corrupt, "key: is damaged")
		}
		return have, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made++
	return map[string][]byte{"key": fmt.Appendf(nil, "root %d", k.made)}, nil
}

func (k *fakeKeyring) Lost(part string, _ map[string]map[string][]byte) string {
	if part == "root" {
		return "restart everything"
	}
	return ""
}

func (k *fakeKeyring) Warning(map[string]map[string][]byte, time.Time) string { return k.warning }

// rig is an issuer with what it stands on.
type rig struct {
	*Issuer
	secrets *fakeSecrets
	keyring *fakeKeyring
	events  []string
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	r := &rig{secrets: newFakeSecrets(), keyring: &fakeKeyring{}}
	r.Issuer = r.another(t, o)
	return r
}

// another issuer of the same Secrets.
func (r *rig) another(t *testing.T, o Options) *Issuer {
	t.Helper()
	o.Namespace, o.Prefix = "test", "hf"
	i, err := New(Deps{Secrets: r.secrets, Keyring: r.keyring, Warn: func(s *corev1.Secret, reason, message string) {
		r.events = append(r.events, s.Name+" "+reason+": "+message)
	}}, o)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func (r *rig) pass(t *testing.T) {
	t.Helper()
	if err := r.Pass(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) data(t *testing.T, name, file string) string {
	t.Helper()
	s, err := r.secrets.Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return string(s.Data[file])
}

// TestPass: all Secrets are made once, and then nothing is written until it has to be.
func TestPass(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	r := newRig(t, Options{Now: func() time.Time { return now }, Owner: &metav1.OwnerReference{Name: "d", UID: "1"}})
	if r.Ready() == nil {
		t.Error("it is ready before the first pass")
	}
	r.pass(t)
	if err := r.Ready(); err != nil {
		t.Error(err)
	}
	if got, want := r.data(t, "hf-b", "cert"), "b of root 1, 2026-05-01"; got != want {
		t.Errorf("hf-b holds %q, want %q", got, want)
	}
	for name, owned := range map[string]bool{"hf-root": false, "hf-a": true} {
		if s, _ := r.secrets.Get(t.Context(), name, metav1.GetOptions{}); (len(s.OwnerReferences) == 1) != owned {
			t.Errorf("%s has the owners %v: what data needs stays, the rest goes with the Deployment", name, s.OwnerReferences)
		}
	}
	before := r.secrets.writes()
	r.pass(t)
	if n := r.secrets.writes() - before; n != 0 {
		t.Errorf("a second pass writes %d times", n)
	}
	now = now.Add(24 * time.Hour)
	if r.Ready() == nil {
		t.Error("a pass of yesterday counts")
	}
	r.pass(t)
	if n := r.secrets.writes() - before; n != 2 {
		t.Errorf("a renewal writes %d times, want 2", n)
	}
	if len(r.events) != 0 {
		t.Errorf("events %v of what is well", r.events)
	}
}

// TestDeleted: what is gone is made anew, and a root's loss is told.
func TestDeleted(t *testing.T) {
	r := newRig(t, Options{})
	r.pass(t)
	r.secrets.remove("hf-a")
	r.pass(t)
	if len(r.events) != 0 || !strings.HasPrefix(r.data(t, "hf-a", "cert"), "a of root 1") {
		t.Errorf("a deleted certificate: events %v", r.events)
	}
	r.secrets.remove("hf-root")
	r.pass(t)
	if got := r.data(t, "hf-b", "cert"); !strings.HasPrefix(got, "b of root 2") {
		t.Errorf("after the root's loss hf-b holds %q", got)
	}
	if want := []string{"hf-root KeysLost: Secret hf-root was deleted: restart everything"}; !slices.Equal(r.events, want) {
		t.Errorf("events %q, want %q", r.events, want)
	}
}

// TestForeign: what somebody else has made is never written, and told once.
func TestForeign(t *testing.T) {
	r := newRig(t, Options{})
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "hf-a"}, Data: map[string][]byte{"mine": []byte("x")}}
	r.secrets.put(foreign)
	for range 2 {
		if err := r.Pass(t.Context()); !storage.Is(err, storage.Exists) || !strings.Contains(err.Error(), "hf-a") {
			t.Fatalf("%v, want Exists with the name", err)
		}
	}
	if r.data(t, "hf-a", "mine") != "x" || r.data(t, "hf-b", "cert") == "" {
		t.Error("the foreign one was changed, or the others were not made")
	}
	if len(r.events) != 1 || !strings.Contains(r.events[0], "ForeignSecret") {
		t.Errorf("events %q, want one about the foreign Secret", r.events)
	}
	if r.Ready() == nil {
		t.Error("it is ready though one is missing")
	}

	// A root that somebody brings is used, and stays as it is.
	r = newRig(t, Options{})
	r.secrets.put(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "hf-root"}, Data: map[string][]byte{"key": []byte("brought")}})
	r.pass(t)
	if !strings.HasPrefix(r.data(t, "hf-a", "cert"), "a of brought") || len(r.events) != 0 {
		t.Errorf("a root that was brought is not used: %q, events %q", r.data(t, "hf-a", "cert"), r.events)
	}
}

// TestDamagedRoot: it is told, and neither it nor what follows from it is written.
func TestDamagedRoot(t *testing.T) {
	r := newRig(t, Options{})
	r.pass(t)
	s, _ := r.secrets.Get(t.Context(), "hf-root", metav1.GetOptions{})
	s.Data["key"] = []byte("damaged")
	r.secrets.put(s)
	before := r.secrets.writes()
	if err := r.Pass(t.Context()); !storage.Is(err, storage.Corrupt) {
		t.Fatalf("%v, want Corrupt", err)
	}
	if n := r.secrets.writes() - before; n != 0 {
		t.Errorf("%d writes", n)
	}
	if len(r.events) != 1 || !strings.Contains(r.events[0], "KeysNotMade") {
		t.Errorf("events %q", r.events)
	}
}

// TestTwoIssuers: two that begin at the same moment agree on one root, whoever is ahead.
func TestTwoIssuers(t *testing.T) {
	r := newRig(t, Options{})
	other := r.another(t, Options{})
	raced := false
	r.secrets.before = func(verb, name string) {
		if verb != "create" || name != "hf-root" || raced {
			return
		}
		raced = true // the other one is faster, at the worst moment
		if err := other.Pass(t.Context()); err != nil {
			t.Error(err)
		}
	}
	r.pass(t)
	r.secrets.before = nil
	if r.keyring.made != 2 {
		t.Fatalf("%d roots were made: the race is not tested", r.keyring.made)
	}
	root := r.data(t, "hf-root", "key")
	for _, name := range []string{"a", "b"} {
		if got := r.data(t, "hf-"+name, "cert"); !strings.HasPrefix(got, name+" of "+root) {
			t.Errorf("hf-%s holds %q, and the root is %q", name, got, root)
		}
	}
	if len(r.events) != 0 {
		t.Errorf("events %q: nothing was lost", r.events)
	}

	// An update on what the other has just changed is refused, and done again on that.
	raced = false
	s, _ := r.secrets.Get(t.Context(), "hf-a", metav1.GetOptions{})
	s.Data = map[string][]byte{"cert": []byte("old")}
	r.secrets.put(s)
	r.secrets.before = func(verb, _ string) {
		if verb != "update" || raced {
			return
		}
		raced = true
		s, _ := r.secrets.Get(t.Context(), "hf-a", metav1.GetOptions{})
		s.Labels["somebody"] = "else"
		r.secrets.put(s)
	}
	r.pass(t)
	s, _ = r.secrets.Get(t.Context(), "hf-a", metav1.GetOptions{})
	if bytes.Equal(s.Data["cert"], []byte("old")) || s.Labels["somebody"] != "else" {
		t.Errorf("after a race, hf-a has labels %v and holds %q", s.Labels, s.Data["cert"])
	}
}

// TestRun: an API server that is away is told once, and asked again.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, Options{})
		r.secrets.failing(errors.New("away"))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		time.Sleep(25 * time.Second) //nolint:forbidigo // time is free here
		synctest.Wait()
		if r.Ready() == nil || r.secrets.writes() != 0 {
			t.Error("it is ready, or has written, without an API server")
		}
		r.secrets.failing(nil)
		time.Sleep(10 * time.Second) //nolint:forbidigo // time is free here
		synctest.Wait()
		if err := r.Ready(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ends with %v", err)
		}
	})
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{
		"no namespace":  {Prefix: "hf"},
		"bad prefix":    {Namespace: "ns", Prefix: "Hf_"},
		"negative time": {Namespace: "ns", Prefix: "hf", Every: -1},
	} {
		if _, err := New(Deps{Keyring: &fakeKeyring{}}, o); !storage.Is(err, storage.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}
