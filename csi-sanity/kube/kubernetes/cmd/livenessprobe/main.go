// livenessprobe stands in for the sidecar of that name, which the Go module
// proxy does not have. It takes the options that the chart gives to the real
// one, and no others: GET /healthz answers 200 while the driver's
// Identity.Probe says that it is ready.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	csiAddress := flag.String("csi-address", "/run/csi/socket", "the driver's socket")
	port := flag.String("health-port", "9808", "port of /healthz on all addresses")
	endpoint := flag.String("http-endpoint", "", "address and port of /healthz, instead of --health-port")
	wait := flag.Duration("probe-timeout", time.Second, "how long a probe may take")
	flag.Int("v", 0, "how much to log; not used here")
	flag.Parse()
	if *endpoint == "" {
		*endpoint = ":" + *port
	}
	conn, err := grpc.NewClient("unix://"+*csiAddress, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", probe{csi.NewIdentityClient(conn), *wait})
	server := &http.Server{Addr: *endpoint, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.ListenAndServe())
}

type probe struct {
	driver csi.IdentityClient
	wait   time.Duration
}

func (p probe) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), p.wait)
	defer cancel()
	answer, err := p.driver.Probe(ctx, &csi.ProbeRequest{})
	switch {
	case err != nil:
		log.Printf("probe: %v", err)
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case answer.Ready != nil && !answer.Ready.Value:
		http.Error(w, "the driver is not ready", http.StatusInternalServerError)
	default:
		_, _ = w.Write([]byte("ok"))
	}
}
