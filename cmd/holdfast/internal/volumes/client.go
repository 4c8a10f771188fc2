package volumes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/driver/keyspb"
)

// callTimeout bounds one CSI call: the driver's own deadlines are shorter, so
// that its reason is seen and not ours.
const callTimeout = 2 * time.Minute

// Client speaks to the two CSI services of a state.
type Client struct {
	dir        state.Dir
	conns      []*grpc.ClientConn
	controller csi.ControllerClient
	node       csi.NodeClient
	keys       keyspb.VolumeKeysClient
}

// Dial makes a client. It connects with the first call.
func Dial(dir state.Dir) (*Client, error) {
	c := &Client{dir: dir}
	for _, socket := range []string{dir.ControllerSocket(), dir.NodeSocket()} {
		conn, err := grpc.NewClient("unix://"+socket,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithUnaryInterceptor(bounded))
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.conns = append(c.conns, conn)
	}
	c.controller = csi.NewControllerClient(c.conns[0])
	c.node = csi.NewNodeClient(c.conns[1])
	c.keys = keyspb.NewVolumeKeysClient(c.conns[0])
	return c, nil
}

// Close ends the connections.
func (c *Client) Close() error {
	var errs []error
	for _, conn := range c.conns {
		errs = append(errs, conn.Close())
	}
	return errors.Join(errs...)
}

// bounded gives each call its deadline, and its error the words for people.
func bounded(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := invoke(call, method, req, reply, cc, opts...)
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return &Error{status: status.Convert(err)}
	}
	return nil
}

// Error is what the driver answered.
type Error struct{ status *status.Status }

// Error gives the driver's own words.
func (e *Error) Error() string {
	switch {
	case e.status.Message() == "":
		return fmt.Sprintf("the driver failed without a reason (%s)", e.status.Code())
	case e.status.Code() == codes.DeadlineExceeded:
		return "the driver did not answer in time: " + e.status.Message()
	}
	return e.status.Message()
}

// GRPCStatus gives the code to status.Code.
func (e *Error) GRPCStatus() *status.Status { return e.status }
