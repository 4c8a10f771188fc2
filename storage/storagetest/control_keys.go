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
