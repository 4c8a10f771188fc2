package seaweed

import (
	"context"
	"encoding/hex"

	"google.golang.org/protobuf/proto"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

// The filer takes a condition on updates and creations, and none on removals and
// renames. A transaction has one for all that it does, about one entry, and is
// carried out under the lock of that entry.

// unchanged is the condition that the filer still holds was, under name.
func unchanged(was *filerpb.Entry, name string) *filerpb.WriteCondition {
	expected := was
	if was.GetName() != name {
		expected = beside(was)
		expected.Name = name
	}
	return &filerpb.WriteCondition{Clauses: []*filerpb.WriteCondition_Clause{{
		Kind: filerpb.WriteCondition_IF_ENTRY_EQUAL, ExpectedEntry: expected,
	}}}
}

// standing is the condition under which a name may go: unchanged, or for a small
// file something weaker. Its entry has the content in it, and to send, read and
// compare that takes a sixth of the whole call; so its sum stands for it. What goes
// is a file of this name with this very content, and not written since: whether
// its owner or its inode is another by now makes no difference to a removal, except
// where the content is held for those who have it open, or stands under other names.
func standing(was *filerpb.Entry, name string, orphan *storage.Orphan) *filerpb.WriteCondition {
	a := was.GetAttributes()
	_, tagged := was.GetExtended()[s3ETag]
	if orphan != nil || tagged || len(was.GetContent()) == 0 || len(a.GetMd5()) == 0 || len(was.GetHardLinkId()) > 0 {
		return unchanged(was, name)
	}
	return &filerpb.WriteCondition{Clauses: []*filerpb.WriteCondition_Clause{
		{Kind: filerpb.WriteCondition_IF_ETAG_MATCH, Etags: []string{hex.EncodeToString(a.GetMd5())}},
		{Kind: filerpb.WriteCondition_IF_UNMODIFIED_SINCE, UnixTime: a.GetMtime()},
	}}
}

// transact carries out mutations in order, provided that condition holds for the
// entry at key: Changed when it does not.
func (c *Client) transact(ctx context.Context, key string, condition *filerpb.WriteCondition, mutations ...*filerpb.ObjectMutation) error {
	r, err := c.filer.ObjectTransaction(ctx, &filerpb.ObjectTransactionRequest{
		LockKey: key, Condition: condition, Mutations: mutations, Signatures: c.signatures(),
	})
	if err != nil {
		return classify(ctx, err)
	}
	return refused(r.GetErrorCode(), r.GetError())
}

// compare looks whether the filer still holds e under dir and name: Changed when
// it does not, NotFound when nothing is there.
func (c *Client) compare(ctx context.Context, dir, name string, e storage.Entry) error {
	o, ok := e.Origin.(origin)
	if !ok {
		return storage.Errorf(storage.Invalid, "%s/%s: changed without having been read", dir, name)
	}
	now, err := c.raw(ctx, dir, name)
	if err != nil {
		return err
	}
	expected := proto.CloneOf(o.entry)
	expected.Name = name
	if !sameEntry(now, expected) {
		return storage.Errorf(storage.Changed, "%s/%s: changed meanwhile", dir, name)
	}
	return nil
}

// raw reads one entry as the filer has it.
func (c *Client) raw(ctx context.Context, dir, name string) (*filerpb.Entry, error) {
	r, err := c.filer.LookupDirectoryEntry(ctx, &filerpb.LookupDirectoryEntryRequest{Directory: dir, Name: name})
	if err != nil {
		return nil, classify(ctx, err)
	}
	return r.GetEntry(), nil
}
