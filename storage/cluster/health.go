package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
)

const (
	// probeEvery is how often a starting process is asked.
	probeEvery = 50 * time.Millisecond
	// probeWait bounds one question.
	probeWait = 2 * time.Second
	// maxAnswer bounds what is read of an answer: the master's list of a thousand
	// volumes is some megabytes.
	maxAnswer = 64 << 20
)

// prober asks the processes over their own ports whether they work.
type prober struct {
	client http.Client
	at     Endpoints
	scheme string // of all but the gateway
}

func newProber(at Endpoints, o Options) (*prober, error) {
	p := &prober{at: at, scheme: "http://"}
	config, err := o.admin().TLS()
	if err != nil {
		return nil, err
	}
	if config != nil {
		p.scheme = "https://"
	}
	p.client = http.Client{
		Timeout: probeWait,
		// No proxy of the environment's, no connection that would outlive the
		// question.
		Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: config},
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	return p, nil
}

// attach gives each spec its probe and its report.
func (p *prober) attach(all []supervise.Spec, ready func(name string)) {
	probes := map[string]func(context.Context) error{
		masterName: p.master, filerName: p.filer, s3Name: p.s3,
	}
	for i := range p.at.VolumeHTTP {
		probes[volumeName(i)] = func(ctx context.Context) error { return p.volume(ctx, i) }
	}
	for i := range all {
		name := all[i].Name
		all[i].Ready = func(ctx context.Context) error {
			if err := supervise.Poll(ctx, probeEvery, probes[name]); err != nil {
				return err
			}
			ready(name)
			return nil
		}
	}
}

// master works when it leads.
func (p *prober) master(ctx context.Context) error {
	var status struct{ IsLeader bool }
	if err := p.json(ctx, p.scheme+p.at.MasterHTTP+"/cluster/status", &status); err != nil {
		return err
	}
	if !status.IsLeader {
		return fmt.Errorf("the master does not lead yet")
	}
	return nil
}

// volume works when it answers and the master knows it.
func (p *prober) volume(ctx context.Context, i int) error {
	own := p.at.VolumeHTTP[i]
	if code, err := p.get(ctx, p.scheme+own+"/healthz", nil); err != nil || code != http.StatusOK {
		return fmt.Errorf("%s/healthz answers %d: %w", own, code, err)
	}
	var status struct {
		Topology struct {
			DataCenters []struct {
				Racks []struct{ DataNodes []struct{ URL string } }
			}
		}
	}
	if err := p.json(ctx, p.scheme+p.at.MasterHTTP+"/dir/status", &status); err != nil {
		return err
	}
	for _, dc := range status.Topology.DataCenters {
		for _, rack := range dc.Racks {
			for _, node := range rack.DataNodes {
				if node.URL == own {
					return nil
				}
			}
		}
	}
	return fmt.Errorf("the master does not know %s yet", own)
}

// filer works when both its ports answer: the HTTP one says 404, on purpose.
func (p *prober) filer(ctx context.Context) error {
	if _, err := p.get(ctx, p.scheme+p.at.FilerHTTP+"/", nil); err != nil {
		return err
	}
	dialer := net.Dialer{Timeout: probeWait}
	conn, err := dialer.DialContext(ctx, "tcp", p.at.FilerGRPC)
	if err != nil {
		return err
	}
	return conn.Close()
}

// s3 works when it turns away a request without a signature: it answers, and the
// identities are loaded.
func (p *prober) s3(ctx context.Context) error {
	code, err := p.get(ctx, p.at.S3URL+"/", nil)
	if err == nil && code != http.StatusForbidden {
		err = fmt.Errorf("an unsigned request gets %d, not %d", code, http.StatusForbidden)
	}
	return err
}

func (p *prober) json(ctx context.Context, url string, into any) error {
	code, err := p.get(ctx, url, into)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s answers %d", url, code)
	}
	return err
}

func (p *prober) get(ctx context.Context, url string, into any) (code int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err
	}
	res, err := p.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	if into != nil && res.StatusCode == http.StatusOK {
		err = json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(into)
	}
	return res.StatusCode, err
}
