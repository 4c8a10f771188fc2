package driver

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

func TestVolumeIDs(t *testing.T) {
	for name, want := range map[string]string{
		"photos": `^photos$`,
		"pvc-0b1e4c1e-6b0f-4a62-9f0e-2b8f3c0d9a11": `^pvc-0b1e4c1e-6b0f-4a62-9f0e-2b8f3c0d9a11$`,
		"a.b":                    `^a\.b$`,
		"Photos":                 `^photos-[0-9a-f]{8}$`,
		"a":                      `^a-[0-9a-f]{8}$`,
		"my photos/2026":         `^my-photos-2026-[0-9a-f]{8}$`,
		"a..b":                   `^a-b-[0-9a-f]{8}$`,
		"127.0.0.1":              `^127-0-0-1-[0-9a-f]{8}$`,
		"xn--bcher":              `^v-xn-bcher-[0-9a-f]{8}$`,
		"ends-s3alias":           `^ends-s3alias-[0-9a-f]{8}$`,
		"äöü":                    `^volume-[0-9a-f]{8}$`,
		"---":                    `^volume-[0-9a-f]{8}$`,
		strings.Repeat("x", 64):  `^x{54}-[0-9a-f]{8}$`,
		strings.Repeat("x", 128): `^x{54}-[0-9a-f]{8}$`,
	} {
		id := VolumeID(name)
		if !regexp.MustCompile(want).MatchString(string(id)) {
			t.Errorf("%q → %q, want %s", name, id, want)
		}
	}
	if VolumeID("Photos") == VolumeID("PHOTOS") {
		t.Error("two names have one id")
	}
}

// TestDerivedNamesAreValid: whatever name CSI allows leads to an id, buckets and
// a user that S3 and IAM take.
func TestDerivedNamesAreValid(t *testing.T) {
	const letters = "abcXYZ019.-_/ :@äß\u00a0漢"
	runes := []rune(letters)
	random := rand.New(rand.NewPCG(1, 2))
	for range 5000 {
		var b strings.Builder
		for range 1 + random.IntN(40) {
			b.WriteRune(runes[random.IntN(len(runes))])
		}
		name := b.String()
		if err := checkVolumeName(name); err != nil {
			continue
		}
		id := VolumeID(name)
		if id != VolumeID(name) || !usable(string(id)) {
			t.Fatalf("%q → %q is not usable", name, id)
		}
		if _, err := checkVolumeID(string(id)); err != nil {
			t.Fatalf("%q → %q: %v", name, id, err)
		}
		other := otherBucketOf(id, name)
		if other == bucketOf(id) || other.Check() != nil {
			t.Fatalf("%q → other bucket %q", name, other)
		}
		if user := userOf(id); len(user) > maxUser || !strings.HasPrefix(user, userPrefix) {
			t.Fatalf("%q → user %q", name, user)
		}
	}
}

// TestUsersOfTwoVolumes: a name that looks like the cut user of a long one had the
// same user, and its creation ended the other volume's keys.
func TestUsersOfTwoVolumes(t *testing.T) {
	long := storage.VolumeID(strings.Repeat("x", 60))
	cut := storage.VolumeID(strings.TrimPrefix(withHash(userPrefix+string(long), userPrefix+string(long), maxUser), userPrefix))
	for _, other := range []storage.VolumeID{cut, long + "y", long[:59]} {
		if a, b := userOf(long), userOf(other); a == b || len(a) > maxUser || len(b) > maxUser {
			t.Errorf("%s and %s have the users %s and %s", long, other, a, b)
		}
	}
}

// TestDeleteTakesTheRecordsUser: also one that another version has named.
func TestDeleteTakesTheRecordsUser(t *testing.T) {
	s, _ := made(t)
	r, err := s.GetRecord(t.Context(), "photos")
	must(t, err)
	r.User = "holdfast-of-old"
	r.Keys, err = s.Grant(t.Context(), r.User, r.Bucket, "")
	must(t, err)
	_, err = s.UpdateRecord(t.Context(), r)
	must(t, err)
	c := newController(s)
	_, err = c.RotateKeys(t.Context(), "photos", "", 0)
	must(t, err)
	if s.Allowed(r.Keys, r.Bucket) || !s.Allowed(keysIn(t, s), r.Bucket) {
		t.Error("not the keys of the record's user were rotated")
	}
	_, err = c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
	must(t, err)
	if users := s.UserNames(); len(users) != 1 || users[0] != userOf("photos") {
		t.Errorf("users left: %v, want the one that the test left", users)
	}
}

func TestVolumeNames(t *testing.T) {
	for _, name := range []string{"", strings.Repeat("x", 129), "a\nb", "a\x00b", "a\xffb", "a\u0085b"} {
		if err := checkVolumeName(name); !storage.Is(err, storage.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestVolumeIDsOfOthers(t *testing.T) {
	for _, id := range []string{"../../etc/passwd", "a/b", "A", strings.Repeat("x", 64), "a..b"} {
		if _, err := checkVolumeID(id); !storage.Is(err, storage.NotFound) {
			t.Errorf("%q: %v", id, err)
		}
	}
}
