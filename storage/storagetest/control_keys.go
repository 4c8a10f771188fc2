package storagetest

import (
	"slices"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file holds what storage.Access promises of several keys of one user.

func (s accessSuite) addAndEnd(t *testing.T) {
	b := makeBucket(t, s.buckets)
	first := s.grant(t, userOf(b), b)
	second, err := s.access.AddKeys(t.Context(), userOf(b))
	must(t, "add keys", err)
	third, err := s.access.AddKeys(t.Context(), userOf(b))
	must(t, "add keys", err)
	for _, k := range []storage.Keys{first, second, third} {
		s.mayUse(t, k, b)
		for _, act := range ownerActs {
			s.refused(t, k, act, b)
		}
	}
	s.wantKeys(t, userOf(b), first, second, third)

	must(t, "end keys", s.access.EndKeys(t.Context(), userOf(b), []string{first.Access, third.Access, "UNKNOWN"}))
	for _, k := range []storage.Keys{first, third} {
		s.refused(t, k, List, b)
	}
	s.mayUse(t, second, b)
	s.wantKeys(t, userOf(b), second)
	must(t, "end them again", s.access.EndKeys(t.Context(), userOf(b), []string{first.Access}))
}

// keysOfNobody: a key that comes too late must not bring a user back.
func (s accessSuite) keysOfNobody(t *testing.T) {
	nobody := userOf(Unique("nobody"))
	_, err := s.access.AddKeys(t.Context(), nobody)
	wantKind(t, "add keys", err, storage.NotFound)
	s.wantKeys(t, nobody)
	must(t, "end keys", s.access.EndKeys(t.Context(), nobody, []string{"UNKNOWN"}))
}

// checkAndRestore: what somebody has changed is seen and made as it was, keys stay,
// and those that are gone stay gone.
func (s accessSuite) checkAndRestore(t *testing.T) {
	a, b := makeBucket(t, s.buckets), makeBucket(t, s.buckets)
	user := userOf(a)
	check := func(when string, wellIn map[storage.BucketName]bool) {
		t.Helper()
		for bucket, well := range wellIn {
			flaw, err := s.access.Check(t.Context(), user, bucket, "")
			must(t, "check", err)
			if (flaw == "") != well {
				t.Errorf("%s: check for bucket %s says %q", when, bucket, flaw)
			}
		}
	}
	k := s.grant(t, user, a)
	check("granted", map[storage.BucketName]bool{a: true, b: false})
	if flaw, err := s.access.Check(t.Context(), user, a, "folder"); err != nil || flaw == "" {
		t.Errorf("check for a folder of the bucket: %q, %v", flaw, err)
	}
	must(t, "restore what is well", s.access.Restore(t.Context(), user, a, ""))
	s.mayUse(t, k, a)
	must(t, "restore for another bucket", s.access.Restore(t.Context(), user, b, ""))
	check("restored for another bucket", map[storage.BucketName]bool{a: false, b: true})
	s.wantKeys(t, user, k)
	s.mayUse(t, k, b)
	s.refused(t, k, List, a)

	must(t, "revoke", s.access.Revoke(t.Context(), user))
	check("revoked", map[storage.BucketName]bool{a: false, b: false})
	must(t, "restore", s.access.Restore(t.Context(), user, a, ""))
	check("restored", map[storage.BucketName]bool{a: true})
	s.wantKeys(t, user)
	s.refused(t, k, List, a)
	more, err := s.access.AddKeys(t.Context(), user)
	must(t, "add keys", err)
	s.mayUse(t, more, a)
}

func (s accessSuite) wantKeys(t *testing.T, user string, want ...storage.Keys) {
	t.Helper()
	have, err := s.access.ListKeys(t.Context(), user)
	must(t, "list keys", err)
	var ids []string
	for _, k := range want {
		ids = append(ids, k.Access)
	}
	slices.Sort(have)
	slices.Sort(ids)
	if !slices.Equal(have, ids) {
		t.Errorf("the user has the keys %v, want %v", have, ids)
	}
}
