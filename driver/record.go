package driver

import (
	"context"

	"github.com/holdfast-csi/holdfast/storage"
)

// updateTries bounds how often a conditional update is begun again. Two nodes and
// a controller may meet; more than this is a defect.
const updateTries = 10

// updateRecord reads a record, lets change judge and alter it, and writes it back
// if nobody was faster; otherwise it starts again, so that change always judges
// what it alters.
func updateRecord(ctx context.Context, records storage.Records, id storage.VolumeID, change func(*storage.Record) error) (storage.Record, error) {
	for try := 1; ; try++ {
		r, err := records.GetRecord(ctx, id)
		if err != nil {
			return storage.Record{}, err
		}
		if err := change(&r); err != nil {
			return storage.Record{}, err
		}
		r, err = records.UpdateRecord(ctx, r)
		if err == nil || !storage.Is(err, storage.Changed) || try >= updateTries {
			return r, err
		}
	}
}

// checkReady says whether a volume may be worked with, or how far its life has come.
func checkReady(r *storage.Record) error {
	switch r.Phase {
	case storage.Ready:
		return nil
	case storage.Deleting:
		return storage.Errorf(storage.InUse, "volume %s is being deleted", r.ID)
	case storage.Archived:
		return storage.Errorf(storage.InUse, "volume %s is archived and has no keys; create it again with the same name and parameters to use it", r.ID)
	default:
		return storage.Errorf(storage.Busy, "volume %s is still being created; try again", r.ID)
	}
}
