package seaweed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
)

const (
	// callTimeout bounds one call when the caller sets no shorter deadline. A
	// master that is away for 8 s delays an assignment by 10 s.
	callTimeout = 30 * time.Second
	// maxBackoff caps gRPC's waits between connection attempts: a filer is back
	// within half a second, and its default would let us wait two minutes.
	maxBackoff = time.Second
	// maxMessage lets an entry with very many chunks pass.
	maxMessage = 64 << 20
	// streamWindow and connWindow bound what a server sends ahead of us. They are
	// fixed: gRPC would find them out by a ping after each answer, which costs both
	// ends as much as a small answer does (DECISIONS.md).
	streamWindow = 4 << 20
	connWindow   = 16 << 20
)

// Options of a client. Filer is required.
type Options struct {
	// Filer is the address of the filer's gRPC port, host:port.
	Filer string
	// TLS lets in to a closed cluster: the filer and the volume servers ask for its
	// client certificate. It is asked again for each new connection. nil speaks
	// plaintext, to a cluster that is open to everybody who reaches it.
	TLS *tls.Config
	// CallTimeout bounds each call, 30 s when zero.
	CallTimeout time.Duration
	// Logger takes what degrades; nothing when nil.
	Logger *slog.Logger
}

// Validate says what is wrong with o.
func (o Options) Validate() error {
	if _, _, err := net.SplitHostPort(o.Filer); err != nil {
		return storage.Errorf(storage.Invalid, "filer address %q: must be host:port of the filer's gRPC port", o.Filer)
	}
	if o.CallTimeout < 0 {
		return storage.Errorf(storage.Invalid, "call timeout %v: must not be negative", o.CallTimeout)
	}
	return nil
}

// Client is a connection to one cluster. It is safe for concurrent use.
type Client struct {
	conn  *grpc.ClientConn
	filer filerpb.SeaweedFilerClient
	// volumes carries chunks from and to the volume servers, servers their gRPC.
	volumes *transport
	servers *servers
	log     *slog.Logger
	// guard is asked before each change; nil allows all.
	guard storage.Guard

	timeout time.Duration
	// signature marks our own changes, so that the stream of changes leaves them
	// out.
	signature int32
	locations *locations
	// placing is held by the one that changes the filer's rules.
	placing chan struct{}
}

// Open prepares a client. It connects when the first call is made, so it does
// not fail when the cluster is away.
func Open(_ context.Context, o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.CallTimeout == 0 {
		o.CallTimeout = callTimeout
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	conn, err := dial(o.Filer, o.TLS, grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		return nil, fmt.Errorf("connect to the filer at %s: %w", o.Filer, err)
	}
	c := &Client{
		conn: conn, filer: filerpb.NewSeaweedFilerClient(conn),
		volumes: &transport{newPool(o.TLS)}, servers: newServers(o.TLS), log: o.Logger,
		timeout: o.CallTimeout, signature: newSignature(), placing: make(chan struct{}, 1),
	}
	c.locations = newLocations(c.lookupVolumes)
	return c, nil
}

// dial prepares a connection.
func dial(address string, config *tls.Config, more ...grpc.DialOption) (*grpc.ClientConn, error) {
	secret := insecure.NewCredentials()
	if config != nil {
		secret = credentials.NewTLS(config)
	}
	back := backoff.DefaultConfig
	back.BaseDelay, back.MaxDelay = 50*time.Millisecond, maxBackoff
	return grpc.NewClient(address, append(more,
		grpc.WithTransportCredentials(secret),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: back, MinConnectTimeout: maxBackoff}),
		grpc.WithStaticStreamWindowSize(streamWindow), grpc.WithStaticConnWindowSize(connWindow),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)...)
}

// Close ends the connections. Calls under way fail.
func (c *Client) Close() error {
	c.volumes.pool.close()
	return errors.Join(c.servers.close(), c.conn.Close())
}

func newSignature() int32 { return rand.Int32N(1<<31-2) + 1 }

// signatures marks a change as ours.
func (c *Client) signatures() []int32 { return []int32{c.signature} }

// Volume gives the contracts for one bucket. id names the record that holds its
// capacity. Two volumes of one bucket hear of each other's changes.
func (c *Client) Volume(b storage.BucketName, id storage.VolumeID) storage.Volume {
	return c.Folder(b, "", id)
}

// Folder gives the contracts for a folder of a bucket, as if there were nothing
// above it.
//
// Its signature is new also when another process takes the volume over. With that of
// the process before, kept in the volume's folder, the stream would leave out what that
// one had sent and the filer carries out when the stream has begun already: nobody
// would doubt it, and what the journal says of it is that it may happen. As it is, what
// the process before did in the last seconds (lookback) is told as somebody else's, and
// is asked for once more.
func (c *Client) Folder(b storage.BucketName, folder storage.Path, id storage.VolumeID) storage.Volume {
	own := *c
	own.signature = newSignature()
	c = &own
	root := rootOf(b, folder)
	return storage.Volume{
		Files:   &bucket{Client: c, root: root, id: id},
		Orphans: &bucket{Client: c, root: root, id: id},
		Chunks:  c.chunks(b, folder),
		Watcher: &watcher{Client: c, root: root},
		Meter:   &meter{Client: c, bucket: b, id: id},
	}
}
