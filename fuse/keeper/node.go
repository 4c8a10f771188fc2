package keeper

import (
	"context"
	"time"
)

// callTimeout bounds a call whose context has no deadline of its own.
const callTimeout = 60 * time.Second

// Node is the node process's way to the keeper. Each call is a connection of its
// own, so that a restarted keeper needs no care. While there is no keeper, calls
// fail with storage.Unavailable.
type Node struct {
	socket string
}

// NewNode makes a client of the keeper's node socket (see NodeSocket). No I/O.
func NewNode(socket string) *Node { return &Node{socket: socket} }

// Mount makes a session and shows it at its target; it returns once the session
// is served. The same request again is fine. Exists when the id or the target is
// taken by another session, InUse when something else is mounted there,
// NotFound or NotDirectory for the target, Denied when it lies outside what the
// keeper allows, Unavailable when no mounter is there, Unsupported when the
// machine has no FUSE. What the mounter says about the config passes through.
func (n *Node) Mount(ctx context.Context, r MountRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return n.call(ctx, opMount, r, nil)
}

// Bind shows a session at one more directory. The same request again is fine.
// NotFound when there is no such session.
func (n *Node) Bind(ctx context.Context, r BindRequest) error {
	if err := r.Validate(); err != nil {
		return err
	}
	return n.call(ctx, opBind, r, nil)
}

// Unmount takes away a mount or a bind of ours. Not mounted is fine. InUse when
// somebody works there, when it is a session's own target and binds are left, or
// when another mount namespace still has it: nothing alive is ever detached. The
// last one ends the session, and Unmount returns when the mounter has closed it.
func (n *Node) Unmount(ctx context.Context, target string) error {
	if err := checkPath(target); err != nil {
		return err
	}
	return n.call(ctx, opUnmount, targetRequest{Target: target}, nil)
}

// Settle returns when what ended sessions of an id have left on this node is safe,
// whatever they ended by. InUse while such a session lives; Unsupported from a keeper
// of an older version.
func (n *Node) Settle(ctx context.Context, id string) error {
	return n.call(ctx, opSettle, idRequest{ID: id}, nil)
}

// Sessions returns the keeper's sessions by id, mounts of ours that nobody serves
// any more among them.
func (n *Node) Sessions(ctx context.Context) ([]SessionInfo, error) {
	var all []SessionInfo
	after := ""
	for {
		var page sessionsAnswer
		if err := n.call(ctx, opSessions, sessionsRequest{After: after}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Sessions...)
		if !page.More || len(page.Sessions) == 0 {
			return all, nil
		}
		after = page.Sessions[len(page.Sessions)-1].ID
	}
}

// Health returns how a session is, soon, however slow the mounter is. It touches
// nothing. NotFound when there is no such session.
func (n *Node) Health(ctx context.Context, id string) (h Health, err error) {
	err = n.call(ctx, opHealth, idRequest{ID: id}, &h)
	return h, err
}

// Reap detaches the mounts of this keeper's run folder whose session is dead, and
// returns where they were.
func (n *Node) Reap(ctx context.Context) ([]string, error) {
	var a reapAnswer
	err := n.call(ctx, opReap, struct{}{}, &a)
	return a.Detached, err
}

// Shutdown ends the keeper. InUse while sessions live.
func (n *Node) Shutdown(ctx context.Context) error {
	return n.call(ctx, opShutdown, struct{}{}, nil)
}

func (n *Node) call(ctx context.Context, op string, body, reply any) error {
	ctx, cancel := withTimeout(ctx, callTimeout)
	defer cancel()
	socket, err := dial(ctx, n.socket)
	if err != nil {
		return err
	}
	c := newConn(socket, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = c.run(context.WithoutCancel(ctx))
	}()
	defer func() {
		c.close()
		<-done
	}()
	return c.call(ctx, op, body, reply)
}

// withTimeout gives ctx a deadline if it has none.
func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
