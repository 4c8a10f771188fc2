package storagetest

import (
	"context"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// Act is one thing that a holder of keys may try.
type Act string

// The acts. A tenant may do the first four to its own bucket, and to no other.
const (
	Put    Act = "put"
	Get    Act = "get"
	List   Act = "list"
	Delete Act = "delete"

	SetVersioning Act = "set versioning"
	SetLifecycle  Act = "set lifecycle"
	SetPolicy     Act = "set policy"
	SetACL        Act = "set ACL"
	RemoveBucket  Act = "remove bucket"

	// MakeKey makes another key pair for the user itself.
	MakeKey Act = "make key"
)

var (
	tenantActs = []Act{Put, Get, List, Delete}
	ownerActs  = []Act{SetVersioning, SetLifecycle, SetPolicy, SetACL, RemoveBucket}
)

// ObjectKey is the object that Put, Get and Delete are about.
const ObjectKey = "object"

// Allowed reports whether a tenant may do that to its own bucket.
func (a Act) Allowed() bool { return a == Put || a == Get || a == List || a == Delete }

// Use tries an act on a bucket, in a folder of it: the object lies there, and
// that is what is listed; "" is the whole bucket. Empty keys stand for an anonymous
// caller.
type Use func(ctx context.Context, k storage.Keys, act Act, b storage.BucketName, in storage.Path) error

// Access is the suite of storage.Access.
func Access(t *testing.T, access storage.Access, buckets storage.Buckets, use Use) {
	s := accessSuite{access, buckets, use}
	t.Run("OwnBucket", s.ownBucket)
	t.Run("OtherBucket", s.otherBucket)
	t.Run("OwnFolder", s.ownFolder)
	t.Run("OtherFolder", s.otherFolder)
	t.Run("BadFolder", s.badFolder)
	t.Run("Anonymous", s.anonymous)
	t.Run("GrantAgainReplacesKeys", s.grantAgain)
	t.Run("GrantMovesToAnotherBucket", s.grantMoves)
	t.Run("KeysAddedAndEnded", s.addAndEnd)
	t.Run("KeysOfNobody", s.keysOfNobody)
	t.Run("CheckAndRestore", s.checkAndRestore)
	t.Run("RevokeEndsEveryKey", s.revoke)
	t.Run("RevokeMissingIsFine", s.revokeMissing)
	t.Run("ContextEnds", s.contextEnds)
}

type accessSuite struct {
	access  storage.Access
	buckets storage.Buckets
	use     Use
}

func (s accessSuite) ownBucket(t *testing.T) {
	b := makeBucket(t, s.buckets)
	k := s.grant(t, userOf(b), b)
	if k.Access == "" || k.Secret == "" {
		t.Fatalf("keys %v are not complete", k)
	}
	s.mayUse(t, k, b)
	for _, act := range append([]Act{MakeKey}, ownerActs...) {
		s.refused(t, k, act, b)
	}
	wantExists(t, s.buckets, b, true)
}

func (s accessSuite) otherBucket(t *testing.T) {
	a, b := makeBucket(t, s.buckets), makeBucket(t, s.buckets)
	k, other := s.grant(t, userOf(a), a), s.grant(t, userOf(b), b)
	s.try(t, other, Put, b)
	for _, act := range append(append([]Act{}, tenantActs...), ownerActs...) {
		s.refused(t, k, act, b)
	}
	s.try(t, other, Get, b)
}

// ownFolder: the folder and what is below it, and neither its neighbours, one
// whose name begins the same among them, nor the bucket as a whole.
func (s accessSuite) ownFolder(t *testing.T) {
	b := makeBucket(t, s.buckets)
	all := s.grant(t, userOf(b)+"-all", b)
	for _, in := range []storage.Path{"", "a", "a/bc", "z"} {
		s.tryIn(t, all, Put, b, in)
	}
	for in, want := range map[storage.Path]bool{"": false, "a": false, "a/bc": false, "a/b": true, "a/bcd": true} {
		empty, err := s.buckets.FolderEmpty(t.Context(), b, in)
		if err != nil || empty != want {
			t.Errorf("folder %q empty = %v, %v", in, empty, err)
		}
	}
	k := s.grantIn(t, userOf(b), b, "a/b")
	for _, act := range tenantActs {
		s.tryIn(t, k, act, b, "a/b")
		s.tryIn(t, k, act, b, "a/b/below")
	}
	for _, in := range []storage.Path{"", "a", "a/bc", "z"} {
		for _, act := range tenantActs {
			s.refusedIn(t, k, act, b, in)
		}
		s.tryIn(t, all, Get, b, in)
	}
	for _, act := range ownerActs {
		s.refused(t, k, act, b)
	}
}

// otherFolder: two folders of one bucket are two tenants.
func (s accessSuite) otherFolder(t *testing.T) {
	b := makeBucket(t, s.buckets)
	first, second := s.grantIn(t, userOf(b), b, "first"), s.grantIn(t, userOf(b)+"-2", b, "second")
	s.tryIn(t, second, Put, b, "second")
	for _, act := range tenantActs {
		s.refusedIn(t, first, act, b, "second")
	}
	s.tryIn(t, second, Get, b, "second")
}

// badFolder: what a policy would read as a pattern, and what is no path.
func (s accessSuite) badFolder(t *testing.T) {
	b := makeBucket(t, s.buckets)
	for _, in := range []storage.Path{"a*", "a?", "${aws:username}", "/a", "a/", "a//b", "../a", "a/./b"} {
		if _, err := s.access.Grant(t.Context(), userOf(b), b, in); !storage.Is(err, storage.Invalid) {
			t.Errorf("grant in folder %q = %v, want Invalid", in, err)
		}
	}
}

func (s accessSuite) anonymous(t *testing.T) {
	b := makeBucket(t, s.buckets)
	s.try(t, s.grant(t, userOf(b), b), Put, b)
	for _, act := range append(append([]Act{}, tenantActs...), ownerActs...) {
		s.refused(t, storage.Keys{}, act, b)
	}
}

func (s accessSuite) grantAgain(t *testing.T) {
	b := makeBucket(t, s.buckets)
	old := s.grant(t, userOf(b), b)
	more, err := s.access.AddKeys(t.Context(), userOf(b))
	must(t, "add keys", err)
	k := s.grant(t, userOf(b), b)
	if k.Access == old.Access {
		t.Fatalf("second grant returned the old key %s", k.Access)
	}
	s.mayUse(t, k, b)
	s.refused(t, old, List, b)
	s.refused(t, more, List, b)
}

func (s accessSuite) grantMoves(t *testing.T) {
	a, b := makeBucket(t, s.buckets), makeBucket(t, s.buckets)
	s.grant(t, userOf(a), a)
	k := s.grant(t, userOf(a), b)
	s.mayUse(t, k, b)
	s.refused(t, k, List, a)
}

func (s accessSuite) revoke(t *testing.T) {
	b := makeBucket(t, s.buckets)
	k := s.grant(t, userOf(b), b)
	keys := []storage.Keys{k}
	for range 2 {
		more, err := s.access.AddKeys(t.Context(), userOf(b))
		must(t, "add keys", err)
		s.try(t, more, Put, b)
		keys = append(keys, more)
	}
	must(t, "revoke", s.access.Revoke(t.Context(), userOf(b)))
	for _, k := range keys {
		for _, act := range tenantActs {
			s.refused(t, k, act, b)
		}
	}
	must(t, "revoke again", s.access.Revoke(t.Context(), userOf(b)))
	s.mayUse(t, s.grant(t, userOf(b), b), b)
}

func (s accessSuite) revokeMissing(t *testing.T) {
	must(t, "revoke", s.access.Revoke(t.Context(), userOf(Unique("nobody"))))
}

func (s accessSuite) contextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := Unique("suite")
	_, err := s.access.Grant(ctx, userOf(b), b, "")
	wantContext(t, "grant", err)
	_, err = s.access.AddKeys(ctx, userOf(b))
	wantContext(t, "add keys", err)
	_, err = s.access.ListKeys(ctx, userOf(b))
	wantContext(t, "list keys", err)
	wantContext(t, "end keys", s.access.EndKeys(ctx, userOf(b), []string{"KEY"}))
	_, err = s.access.Check(ctx, userOf(b), b, "")
	wantContext(t, "check", err)
	wantContext(t, "restore", s.access.Restore(ctx, userOf(b), b, ""))
	wantContext(t, "revoke", s.access.Revoke(ctx, userOf(b)))
}

func (s accessSuite) grant(t *testing.T, user string, b storage.BucketName) storage.Keys {
	t.Helper()
	return s.grantIn(t, user, b, "")
}

func (s accessSuite) grantIn(t *testing.T, user string, b storage.BucketName, prefix storage.Path) storage.Keys {
	t.Helper()
	k, err := s.access.Grant(t.Context(), user, b, prefix)
	must(t, "grant", err)
	t.Cleanup(func() {
		if err := s.access.Revoke(context.WithoutCancel(t.Context()), user); err != nil {
			t.Errorf("revoke %s: %v", user, err)
		}
	})
	return k
}

func (s accessSuite) mayUse(t *testing.T, k storage.Keys, b storage.BucketName) {
	t.Helper()
	for _, act := range tenantActs {
		s.try(t, k, act, b)
	}
}

func (s accessSuite) try(t *testing.T, k storage.Keys, act Act, b storage.BucketName) {
	t.Helper()
	s.tryIn(t, k, act, b, "")
}

func (s accessSuite) tryIn(t *testing.T, k storage.Keys, act Act, b storage.BucketName, in storage.Path) {
	t.Helper()
	if err := s.use(t.Context(), k, act, b, in); err != nil {
		t.Errorf("%s on %s/%s with %v: %v", act, b, in, k, err)
	}
}

func (s accessSuite) refused(t *testing.T, k storage.Keys, act Act, b storage.BucketName) {
	t.Helper()
	s.refusedIn(t, k, act, b, "")
}

func (s accessSuite) refusedIn(t *testing.T, k storage.Keys, act Act, b storage.BucketName, in storage.Path) {
	t.Helper()
	wantKind(t, string(act)+" on "+string(b)+"/"+string(in)+" with "+k.String(), s.use(t.Context(), k, act, b, in), storage.Denied)
}

func userOf(b storage.BucketName) string { return "holdfast-" + string(b) }
