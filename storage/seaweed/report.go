package seaweed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"regexp"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

const (
	// reportsDir holds one entry per node that has something to report.
	reportsDir = "/etc/holdfast/reports"
	// reportsPage is how many are listed at once, reportTries how often one is written
	// when two processes of a node meet, at a restart.
	reportsPage = 500
	reportTries = 3
)

var _ storage.Reports = (*Client)(nil)

// plainNode are node names that can be names of entries: those of Kubernetes.
var plainNode = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,252}$`)

// reportName is the entry of a node's report.
func reportName(node string) string {
	if plainNode.MatchString(node) {
		return node
	}
	sum := sha256.Sum256([]byte(node))
	return "_" + hex.EncodeToString(sum[:]) // no plain one begins like this
}

// PutReport implements storage.Reports.
func (c *Client) PutReport(ctx context.Context, r storage.Report) error {
	body, err := storage.EncodeReport(r)
	if err != nil {
		return err
	}
	for range reportTries {
		if err = c.putReport(ctx, reportName(r.Node), body); !storage.Is(err, storage.Changed) && !storage.Is(err, storage.Exists) && !storage.Is(err, storage.NotFound) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("report of node %q: %w", r.Node, err)
	}
	return nil
}

func (c *Client) putReport(ctx context.Context, name string, body []byte) error {
	now := time.Now()
	e, err := c.entry(ctx, reportsDir, name)
	if err == nil {
		e.Inline, e.Size, e.Mtime = body, int64(len(body)), now
		_, err = c.update(ctx, reportsDir, e)
		return err
	}
	if !storage.Is(err, storage.NotFound) {
		return err
	}
	_, err = c.create(ctx, reportsDir, toWire(storage.Entry{
		Name: name, Mode: 0o600, Size: int64(len(body)), Inline: body, Mtime: now, Btime: now, MIME: "application/json", Native: true,
	}))
	return err
}

// ListReports implements storage.Reports.
func (c *Client) ListReports(ctx context.Context) ([]storage.Report, error) {
	var list []storage.Report
	for after := ""; ; {
		page, err := c.list(ctx, reportsDir, after, reportsPage)
		if err != nil {
			return nil, fmt.Errorf("list reports: %w", err)
		}
		for _, e := range page {
			after = e.Name
			r, err := storage.ParseReport(e.Inline)
			if err != nil {
				c.log.WarnContext(ctx, "the report of a node cannot be read", slog.String("path", reportsDir+"/"+e.Name), slog.Any("err", err))
				continue
			}
			list = append(list, r)
		}
		if len(page) < reportsPage {
			return list, nil
		}
	}
}

// DeleteReport implements storage.Reports.
func (c *Client) DeleteReport(ctx context.Context, node string) error {
	if err := c.remove(ctx, reportsDir, reportName(node), true); err != nil {
		return fmt.Errorf("report of node %q: %w", node, err)
	}
	return nil
}
