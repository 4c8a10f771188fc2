package seaweed

import (
	"context"
	"fmt"
	"path"
	"strconv"
	"strings"

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

// FreeHeld frees what mounts hold of a volume that none of them has any more, and
// removes the folders that it lay in. What no mount has put there stays: kept names
// it.
func (c *Client) FreeHeld(ctx context.Context, id storage.VolumeID) (kept []string, err error) {
	if id == "" || id == "." || id == ".." || strings.ContainsRune(string(id), '/') {
		return nil, storage.Errorf(storage.Invalid, "volume id %q: it has to be a name", id)
	}
	f := freeing{Client: c}
	if _, err := f.folder(ctx, orphansDir, string(id), f.holder); err != nil {
		return f.kept, fmt.Errorf("free what was held of volume %s: %w", id, err)
	}
	return f.kept, nil
}

// freeing is a FreeHeld under way.
type freeing struct {
	*Client
	kept []string
}

// folder has every entry of a folder taken away by free, which says whether the name
// is gone, and then the folder itself, which is never done with what is in it.
func (f *freeing) folder(ctx context.Context, parent, name string, free func(ctx context.Context, dir string, e storage.Entry) (bool, error)) (gone bool, err error) {
	dir, empty := path.Join(parent, name), true
	err = f.eachEntry(ctx, dir, func(e storage.Entry) error {
		gone, err := free(ctx, dir, e)
		if err == nil && !gone {
			empty = false
		}
		return err
	})
	if err != nil || !empty {
		return false, err
	}
	err = f.remove(ctx, parent, name, false)
	if storage.Is(err, storage.NotEmpty) {
		f.kept = append(f.kept, dir)
		return false, nil
	}
	return err == nil, err
}

// holder frees what one holder has.
func (f *freeing) holder(ctx context.Context, dir string, e storage.Entry) (bool, error) {
	if !e.IsDir() {
		f.kept = append(f.kept, path.Join(dir, e.Name))
		return false, nil
	}
	return f.folder(ctx, dir, e.Name, f.orphan)
}

// orphan frees one.
func (f *freeing) orphan(ctx context.Context, dir string, e storage.Entry) (bool, error) {
	if !isOrphan(e) {
		f.kept = append(f.kept, path.Join(dir, e.Name))
		return false, nil
	}
	err := f.remove(ctx, dir, e.Name, true)
	return err == nil, err
}

// isOrphan: their names are numbers.
func isOrphan(e storage.Entry) bool {
	_, err := strconv.ParseUint(e.Name, 10, 64)
	return err == nil && !e.IsDir()
}

// each calls f with every name in dir, which may be missing.
func (b *bucket) each(ctx context.Context, dir string, f func(name string)) error {
	return b.eachEntry(ctx, dir, func(e storage.Entry) error {
		f(e.Name)
		return nil
	})
}

func (c *Client) eachEntry(ctx context.Context, dir string, f func(e storage.Entry) error) error {
	for after := ""; ; {
		page, err := c.list(ctx, dir, after, orphanPage)
		if err != nil {
			return err
		}
		for _, e := range page {
			after = e.Name
			if err := f(e); err != nil {
				return err
			}
		}
		if len(page) < orphanPage {
			return nil
		}
	}
}
