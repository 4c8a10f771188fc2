package keeper

import (
	"context"
	"log/slog"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// Options of a Keeper.
type Options struct {
	Log *slog.Logger
	// RunDir holds the sockets and the lock. It is made if missing (one level).
	RunDir string
	// NodeUID and MounterUID may connect, beside root.
	NodeUID, MounterUID int
	// AllowRoots are folders beneath which targets may lie. A node that is not
	// root may also use directories that it owns.
	AllowRoots []string
	// NotifierThread is the name of the mounter's threads that the fence does not
	// wait for (session.NotifierThread).
	NotifierThread string
	// MounterWait is how long a request waits for a mounter; 0 means 10 s.
	MounterWait time.Duration
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if o.RunDir == "" {
		return storage.Errorf(storage.Invalid, "the keeper needs a run folder")
	}
	if err := checkPath(o.RunDir); err != nil {
		return err
	}
	for _, root := range o.AllowRoots {
		if err := checkPath(root); err != nil {
			return err
		}
	}
	if o.NodeUID < 0 || o.MounterUID < 0 {
		return storage.Errorf(storage.Invalid, "the uids of the node and of the mounter must not be negative")
	}
	return nil
}

// Keeper is the privileged process.
type Keeper struct {
	opts Options
	log  *slog.Logger
}

// New makes a keeper. No I/O.
func New(opts Options) (*Keeper, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	k := &Keeper{opts: opts, log: opts.Log}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	return k, nil
}

// Run works until ctx ends (it returns ctx's error) or until Shutdown was asked
// for (nil). Sessions live on in the mounter.
func (k *Keeper) Run(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}
