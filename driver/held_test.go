package driver

import (
	"context"
	"slices"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/memory"
)

// freer notes of which volumes something was freed, and whether their bucket was there.
type freer struct {
	store *memory.Store
	freed []storage.VolumeID
	err   error
}

func (f *freer) FreeHeld(ctx context.Context, id storage.VolumeID) ([]string, error) {
	r, err := f.store.GetRecord(ctx, id)
	if err != nil {
		return nil, err
	}
	if there, err := f.store.BucketExists(ctx, r.Bucket); err != nil || !there {
		return nil, storage.Errorf(storage.Other, "the bucket was gone before")
	}
	f.freed = append(f.freed, id)
	return []string{"a user's"}, f.err
}

// TestDeletionFreesWhatIsHeld: what dead nodes hold goes with the volume, whatever
// becomes of its bucket, and never while a node has it.
func TestDeletionFreesWhatIsHeld(t *testing.T) {
	for _, onDelete := range []storage.OnDelete{storage.DeleteData, storage.Retain, storage.Archive} {
		s := memory.New()
		f := &freer{store: s}
		c := NewController(ControllerDeps{Records: s, Buckets: s, Access: s, Held: f})
		req := ask("photos")
		req.Parameters = map[string]string{"onDelete": string(onDelete)}
		_, err := c.CreateVolume(t.Context(), req)
		must(t, err)
		remove := func() error {
			_, err := c.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: "photos"})
			return err
		}
		r, err := s.GetRecord(t.Context(), "photos")
		must(t, err)
		r.Leases = map[string]storage.Lease{"a": {Renewal: 1}}
		r, err = s.UpdateRecord(t.Context(), r)
		must(t, err)
		wantKind(t, "in use", remove(), storage.InUse)
		if len(f.freed) > 0 {
			t.Fatalf("%s: freed while a node has the volume", onDelete)
		}
		r.Leases = nil
		_, err = s.UpdateRecord(t.Context(), r)
		must(t, err)
		f.err = storage.Errorf(storage.Unavailable, "no filer")
		wantKind(t, "not freed", remove(), storage.Unavailable)
		f.err = storage.Errorf(storage.Corrupt, "what is there cannot be read")
		must(t, remove())
		if want := []storage.VolumeID{"photos", "photos"}; !slices.Equal(f.freed, want) {
			t.Errorf("%s: freed %v, want %v", onDelete, f.freed, want)
		}
		must(t, remove())
	}
}
