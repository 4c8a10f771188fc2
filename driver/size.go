package driver

import (
	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/holdfast-csi/holdfast/storage"
)

// defaultSize is what a volume gets when nobody says how much.
const defaultSize = 1 << 30

// sizeOf returns the capacity for a new volume, within the range.
func sizeOf(r *csi.CapacityRange) (int64, error) {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	if err := checkRange(r); err != nil {
		return 0, err
	}
	switch {
	case required > 0:
		return required, nil
	case limit > 0:
		return min(limit, defaultSize), nil
	}
	return defaultSize, nil
}

// fits reports whether a volume of that size is what the range asks for.
func fits(size int64, r *csi.CapacityRange) bool {
	return size >= r.GetRequiredBytes() && (r.GetLimitBytes() == 0 || size <= r.GetLimitBytes())
}

func checkRange(r *csi.CapacityRange) error {
	required, limit := r.GetRequiredBytes(), r.GetLimitBytes()
	switch {
	case required < 0 || limit < 0:
		return storage.Errorf(storage.OutOfRange, "capacity: required %d and limit %d bytes must not be negative", required, limit)
	case limit > 0 && required > limit:
		return storage.Errorf(storage.OutOfRange, "capacity: required %d bytes are more than the limit of %d", required, limit)
	}
	return nil
}
