package seaweed

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/holdfast-csi/holdfast/storage"
)

// linkIDKind ends an id of a hard link, as the filer's own clients write it.
const linkIDKind = 1

// maxLinks is what a 32-bit counter can hold with room to spare; Linux's own
// file systems stop at 65,000.
const maxLinks = 65000

// BeginLink implements storage.Files: the first link gives the file an id under
// which the filer keeps its attributes and chunks for all names.
func (b *bucket) BeginLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if e.IsDir() {
		return storage.Entry{}, storage.Errorf(storage.NotPermitted, "link of %q: a directory has one name", p)
	}
	if e.Links >= maxLinks {
		return storage.Entry{}, storage.Errorf(storage.TooManyLinks, "link of %q: it has %d names already", p, e.Links)
	}
	if e.LinkID == "" {
		id := make([]byte, 17)
		rand.Read(id)
		id[16] = linkIDKind
		e.LinkID, e.Links = string(id), 1
	}
	e.Links++
	e.Linking = append(slices.Clone(e.Linking), op)
	e.Ctime = time.Now()
	counted, err := b.Update(ctx, p, e)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("begin a link: %w", err)
	}
	return counted, nil
}

// EndLink implements storage.Files. The new name's entry is written for all
// names, so it is made from what the old one holds at this moment.
func (b *bucket) EndLink(ctx context.Context, from, to storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	var now storage.Entry
	group, looking := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		now, err = b.Lookup(looking, from)
		return err
	})
	group.Go(func() error { return b.checkParent(looking, to) })
	if err := group.Wait(); err != nil {
		return storage.Entry{}, fmt.Errorf("link %q to %q: %w", to, from, err)
	}
	if now.LinkID == "" || now.LinkID != e.LinkID || !slices.Contains(now.Linking, op) {
		return storage.Entry{}, storage.Errorf(storage.Changed, "link %q to %q: no link of it was begun", to, from)
	}
	now.Linking = without(now.Linking, op)
	dir, name := b.locate(to)
	w := toWire(now)
	w.Name = name
	linked, err := b.create(ctx, dir, w)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("link %q to %q: %w", to, from, err)
	}
	return linked, nil
}

// CancelLink implements storage.Files.
func (b *bucket) CancelLink(ctx context.Context, p storage.Path, e storage.Entry, op string) (storage.Entry, error) {
	if !slices.Contains(e.Linking, op) {
		return e, nil
	}
	e.Links--
	e.Linking = without(e.Linking, op)
	done, err := b.Update(ctx, p, e)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("cancel a link: %w", err)
	}
	return done, nil
}

func without(list []string, s string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == s })
}
