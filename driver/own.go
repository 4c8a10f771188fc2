package driver

import "github.com/holdfast-csi/holdfast/storage"

// OwnContent reports whether what is in a volume is its own: its bucket was made for it,
// or its folder was empty and nobody else's when it was made. It is not where the
// StorageClass names a bucket or a folder as it is, which several volumes may have, or
// which was there before.
func OwnContent(r *storage.Record) bool {
	if !r.Adopted {
		return true
	}
	s, err := parseParams(r.Parameters)
	return err == nil && r.Prefix != "" && (!s.bucket.fixed() || !s.prefix.fixed())
}
