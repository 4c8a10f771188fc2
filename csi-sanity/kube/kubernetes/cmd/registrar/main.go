// registrar stands in for node-driver-registrar, which the Go module proxy does
// not have. It takes the options that the chart gives to the real one, and no
// others: it asks the driver for its name, and serves the kubelet's
// registration socket until the kubelet refuses it or it is told to end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

func main() {
	csiAddress := flag.String("csi-address", "/run/csi/socket", "the driver's socket, as this container sees it")
	kubeletPath := flag.String("kubelet-registration-path", "", "the driver's socket, as the kubelet sees it")
	registrationDir := flag.String("plugin-registration-path", "/registration", "the kubelet's folder of registration sockets")
	wait := flag.Duration("timeout", 30*time.Second, "how long the driver may take to answer")
	flag.Int("v", 0, "how much to log; not used here")
	flag.Parse()
	if err := run(*csiAddress, *kubeletPath, *registrationDir, *wait); err != nil {
		log.Fatal(err)
	}
}

func run(csiAddress, kubeletPath, registrationDir string, wait time.Duration) error {
	if kubeletPath == "" {
		return errors.New("--kubelet-registration-path is wanted: the driver's socket, as the kubelet sees it")
	}
	name, err := driverName(csiAddress, wait)
	if err != nil {
		return fmt.Errorf("ask the driver at %s for its name: %w", csiAddress, err)
	}
	socket := filepath.Join(registrationDir, name+"-reg.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket) // its Close removes the socket
	if err != nil {
		return err
	}
	s := &server{name: name, endpoint: kubeletPath, refused: make(chan error, 1)}
	g := grpc.NewServer()
	registration.RegisterRegistrationServer(g, s)
	served := make(chan error, 1)
	go func() { served <- g.Serve(listener) }()
	defer g.Stop()

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.refused:
		return err
	case err := <-served:
		return err
	}
}

func driverName(address string, wait time.Duration) (string, error) {
	conn, err := grpc.NewClient("unix://"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{}, grpc.WaitForReady(true))
	return info.GetName(), err
}

// server answers the kubelet.
type server struct {
	registration.UnimplementedRegistrationServer
	name, endpoint string
	refused        chan error
}

func (s *server) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	log.Printf("the kubelet asks for %s, which is at %s", s.name, s.endpoint)
	return &registration.PluginInfo{
		Type: registration.CSIPlugin, Name: s.name, Endpoint: s.endpoint, SupportedVersions: []string{"1.0.0"},
	}, nil
}

func (s *server) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if status.PluginRegistered {
		log.Print("registered")
	} else {
		select {
		case s.refused <- fmt.Errorf("the kubelet refuses the registration: %s", status.Error):
		default: // one refusal ends it already
		}
	}
	return &registration.RegistrationStatusResponse{}, nil
}
