package seaweed

import (
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
)

// linkIDKind ends an id of a hard link, as the filer's own clients write it.
const linkIDKind = 1

// maxLinks is what a 32-bit counter can hold with room to spare; Linux's own
// file systems stop at 65,000.
const maxLinks = 65000

// Link implements storage.Files: the first link gives the file an id under which
// the filer keeps its attributes and chunks for all names. When the second step
// fails the count is set back.
func (b *bucket) Link(ctx context.Context, from, to storage.Path) (storage.Entry, error) {
	e, err := b.Lookup(ctx, from)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("link %q to %q: %w", to, from, err)
	}
	if e.IsDir() {
		return storage.Entry{}, storage.Errorf(storage.NotPermitted, "link %q to %q: a directory has one name", to, from)
	}
	if e.Links >= maxLinks {
		return storage.Entry{}, storage.Errorf(storage.TooManyLinks, "link %q to %q: it has %d names already", to, from, e.Links)
	}
	if _, err := b.Lookup(ctx, to); err == nil {
		return storage.Entry{}, storage.Errorf(storage.Exists, "link %q to %q: the name is taken", to, from)
	} else if !storage.Is(err, storage.NotFound) {
		return storage.Entry{}, fmt.Errorf("link %q to %q: %w", to, from, err)
	}
	if e.LinkID == "" {
		id := make([]byte, 17)
		rand.Read(id)
		id[16] = linkIDKind
		e.LinkID, e.Links = string(id), 1
	}
	e.Links++
	e.Ctime = time.Now()
	counted, err := b.Update(ctx, from, e)
	if err != nil {
		return storage.Entry{}, fmt.Errorf("link %q to %q: %w", to, from, err)
	}
	dir, name := b.locate(to)
	w := proto.CloneOf(counted.Origin.(origin).entry)
	w.Name = name
	linked, err := b.create(ctx, dir, w)
	if err != nil {
		counted.Links--
		if _, undo := b.Update(context.WithoutCancel(ctx), from, counted); undo != nil {
			b.log.Warn("a hard link's count is one too high", "op", "link", "path", from, "err", undo)
		}
		return storage.Entry{}, fmt.Errorf("link %q to %q: %w", to, from, err)
	}
	return linked, nil
}
