package seaweed

import (
	"context"
	"fmt"
	"path"
	"strconv"

	"github.com/holdfast-csi/holdfast/storage"
)

// orphansDir holds the files without a name: a folder for each volume, in it one
// for each holder, in it the entries themselves. For each volume and not for each
// bucket: who looks for holders that have died knows the leases of one volume, and
// would take the holders of another for dead. So whatever looks for chunks
// that nobody uses finds that these are used. It lies outside of the bucket,
// since nobody is to see them.
const orphansDir = "/etc/holdfast/orphans"

// orphanPage is how many are asked for at once.
const orphanPage = 1000

// orphans implements storage.Orphans.
var _ storage.Orphans = (*bucket)(nil)

// orphanPlace is where an orphan lies on the filer.
func (b *bucket) orphanPlace(o storage.Orphan) (dir, name string) {
	return path.Join(orphansDir, string(b.id), o.Holder), strconv.FormatUint(o.ID, 10)
}

// FreeOrphan implements storage.Orphans.
func (b *bucket) FreeOrphan(ctx context.Context, o storage.Orphan) error {
	dir, name := b.orphanPlace(o)
	if err := b.remove(ctx, dir, name, true); err != nil {
		return fmt.Errorf("free the orphan %d of %s: %w", o.ID, o.Holder, err)
	}
	return nil
}

// Orphans implements storage.Orphans.
func (b *bucket) Orphans(ctx context.Context, holder string) ([]storage.Orphan, error) {
	var found []storage.Orphan
	err := b.each(ctx, path.Join(orphansDir, string(b.id), holder), func(name string) {
		if id, err := strconv.ParseUint(name, 10, 64); err == nil {
			found = append(found, storage.Orphan{Holder: holder, ID: id})
		}
	})
	if err != nil {
		return nil, fmt.Errorf("list the orphans of %s: %w", holder, err)
	}
	return found, nil
}

// Holders implements storage.Orphans.
func (b *bucket) Holders(ctx context.Context) ([]string, error) {
	var found []string
	err := b.each(ctx, path.Join(orphansDir, string(b.id)), func(name string) { found = append(found, name) })
	if err != nil {
		return nil, fmt.Errorf("list the holders of orphans: %w", err)
	}
	return found, nil
}

// each calls f with every name in dir, which may be missing.
func (b *bucket) each(ctx context.Context, dir string, f func(name string)) error {
	for after := ""; ; {
		page, err := b.list(ctx, dir, after, orphanPage)
		if err != nil {
			return err
		}
		for _, e := range page {
			after = e.Name
			f(e.Name)
		}
		if len(page) < orphanPage {
			return nil
		}
	}
}
