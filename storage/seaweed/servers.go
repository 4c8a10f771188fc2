package seaweed

import (
	"crypto/tls"
	"errors"
	"fmt"
	"sync"

	"google.golang.org/grpc"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/volumepb"
)

// servers keeps a gRPC connection to each volume server that was ever asked.
type servers struct {
	tls *tls.Config

	mu struct {
		sync.Mutex
		closed bool
		conns  map[string]*grpc.ClientConn
	}
}

func newServers(config *tls.Config) *servers {
	s := &servers{tls: config}
	s.mu.conns = map[string]*grpc.ClientConn{}
	return s
}

// at gives the server with that address. It does not wait for one that is away:
// another replica may do, or a look-up may say that it has moved.
func (s *servers) at(address string) (volumepb.VolumeServerClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, storage.Errorf(storage.Unavailable, "the client is closed")
	}
	conn := s.mu.conns[address]
	if conn == nil {
		var err error
		if conn, err = dial(address, s.tls); err != nil {
			return nil, fmt.Errorf("connect to the volume server at %s: %w", address, err)
		}
		s.mu.conns[address] = conn
	}
	return volumepb.NewVolumeServerClient(conn), nil
}

func (s *servers) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.closed = true
	var errs []error
	for _, conn := range s.mu.conns {
		errs = append(errs, conn.Close())
	}
	clear(s.mu.conns)
	return errors.Join(errs...)
}

// url is where a volume server has something over HTTP.
func (c *Client) url(at holder, path string) string {
	if c.volumes.pool.tls != nil {
		return "https://" + at.http + "/" + path
	}
	return "http://" + at.http + "/" + path
}
