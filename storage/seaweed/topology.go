package seaweed

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed/filerpb"
	"github.com/holdfast-csi/holdfast/storage/seaweed/masterpb"
)

// This file asks the master which volume servers there are. The filer does not tell,
// but where its masters are. It is asked when a volume with a placement is made, by
// the controller alone: the other services' certificates do not open the master.

// noCollection is no bucket's name, so that no volumes are listed: the servers are
// what is asked for, and there may be thousands of volumes.
const noCollection = "-"

// Topology implements storage.Placer.
func (c *Client) Topology(ctx context.Context) (storage.Topology, error) {
	masters, err := c.masters(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask the filer for its masters: %w", err)
	}
	err = storage.Errorf(storage.Unavailable, "the filer knows no master")
	for _, master := range masters { // only the leader answers
		var t storage.Topology
		if t, err = c.topologyOf(ctx, master); err == nil {
			return t, nil
		}
		if storage.IsContext(err) && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return nil, fmt.Errorf("ask the master for its volume servers: %w", err)
}

func (c *Client) masters(ctx context.Context) ([]string, error) {
	var masters []string
	err := c.call(ctx, func(ctx context.Context, _ int) error {
		r, err := c.filer.GetFilerConfiguration(ctx, &filerpb.GetFilerConfigurationRequest{})
		masters = r.GetMasters()
		return classify(ctx, err)
	})
	return masters, err
}

func (c *Client) topologyOf(ctx context.Context, master string) (t storage.Topology, err error) {
	address, err := grpcAddress(master)
	if err != nil {
		return nil, err
	}
	conn, err := dial(address, c.servers.tls)
	if err != nil {
		return nil, fmt.Errorf("connect to the master at %s: %w", address, err)
	}
	defer func() { _ = conn.Close() }()
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	r, err := masterpb.NewSeaweedClient(conn).VolumeList(bounded, &masterpb.VolumeListRequest{Collection: noCollection})
	if err != nil {
		return nil, classifyFrom(ctx, "master "+address, err)
	}
	for _, center := range r.GetTopologyInfo().GetDataCenterInfos() {
		for _, rack := range center.GetRackInfos() {
			for _, node := range rack.GetDataNodeInfos() {
				t = append(t, serverOf(center.GetId(), rack.GetId(), node, int64(r.GetVolumeSizeLimitMb())<<20))
			}
		}
	}
	return t, nil
}

// serverOf has a server's free bytes as far as its slots for volumes, of sizeLimit bytes
// each, let it use them.
func serverOf(center, rack string, node *masterpb.DataNodeInfo, sizeLimit int64) storage.Server {
	s := storage.Server{Name: node.GetId(), Rack: rack, DataCenter: center, Room: map[string]int64{}, Free: map[string]int64{}}
	for kind, disk := range node.GetDiskInfos() {
		if kind == "" {
			kind = storage.DefaultDisk
		}
		if disk.GetMaxVolumeCount() > 0 { // 0: somebody has asked for such a disk, and it has none
			s.Room[kind] = disk.GetFreeVolumeCount()
			if disk.GetDiskTotalBytes() > 0 && sizeLimit > 0 {
				s.Free[kind] = min(int64(disk.GetDiskFreeBytes()), max(disk.GetFreeVolumeCount(), 0)*sizeLimit)
			}
		}
	}
	return s
}

// grpcAddress is the gRPC port of what weed calls host:port or host:port.grpcPort.
func grpcAddress(weed string) (string, error) {
	host, ports, err := net.SplitHostPort(weed)
	if err != nil {
		return "", storage.Errorf(storage.Corrupt, "address %q of a master: %w", weed, err)
	}
	http, grpc, given := strings.Cut(ports, ".")
	if !given {
		n, err := strconv.Atoi(http)
		if err != nil {
			return "", storage.Errorf(storage.Corrupt, "address %q of a master: %w", weed, err)
		}
		grpc = strconv.Itoa(n + grpcOffset)
	}
	return net.JoinHostPort(host, grpc), nil
}
