package cluster

import (
	"fmt"
	"net"
	"strconv"
)

// Endpoints are the addresses of a cluster. S3URL is a URL, and serves the IAM
// API too; the others are "ip:port", where what is named HTTP is HTTPS in a closed
// cluster.
type Endpoints struct {
	S3URL      string
	MasterHTTP string
	MasterGRPC string
	// FilerHTTP answers 404 to everything: the filer is spoken to by gRPC.
	FilerHTTP string
	FilerGRPC string
	// VolumeHTTP serves and takes chunks, one address for each volume server.
	VolumeHTTP []string
	VolumeGRPC []string
}

func (o Options) endpoints(p Ports) Endpoints {
	at := func(port int) string { return net.JoinHostPort(o.IP, strconv.Itoa(port)) }
	scheme := "http://"
	if o.S3TLS {
		scheme = "https://"
	}
	e := Endpoints{
		S3URL:      scheme + at(p.S3.HTTP),
		MasterHTTP: at(p.Master.HTTP), MasterGRPC: at(p.Master.GRPC),
		FilerHTTP: at(p.Filer.HTTP), FilerGRPC: at(p.Filer.GRPC),
	}
	for _, v := range p.Volumes {
		e.VolumeHTTP = append(e.VolumeHTTP, at(v.HTTP))
		e.VolumeGRPC = append(e.VolumeGRPC, at(v.GRPC))
	}
	return e
}

// weedAddress is how weed writes an address whose gRPC port is not HTTP + 10000.
func weedAddress(ip string, p Pair) string { return fmt.Sprintf("%s:%d.%d", ip, p.HTTP, p.GRPC) }
