package storage

import (
	"context"
	"encoding/json"
	"time"
)

// A report is a node's word on which of its volumes are not well. It stands in the
// store, for whoever tells people: a node itself has no right at any API server. Leases
// could have carried it; but a node that has lost a volume, which is what has to be told
// most, has no lease any more, and a record that an older mounter cannot read would end
// its lease.
//
// A report is judged as a lease is, without clocks: while the node lives, its beat goes
// on, and one that stands still says nothing any more.

const (
	// MaxReport bounds a report, in bytes. The volumes that do not fit are left out.
	MaxReport = 256 << 10
	// maxFindings, maxReason and maxMessage bound what is said of one volume.
	maxFindings = 8
	maxReason   = 64
	maxMessage  = 512
)

// Finding is one thing that is not as it should be with a volume.
type Finding struct {
	// Status is "inaccessible", "data loss" or "degraded"; Reason one word of the table
	// in ARCHITECTURE.md; Message is for people, and has no secret.
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Report is what a node says.
type Report struct {
	Node string `json:"node"`
	// Beat is another one with each report of the node.
	Beat uint64 `json:"beat"`
	// Every is how often the node reports while something is not well. One report in
	// which all is well is its last.
	Every time.Duration `json:"every"`
	// Volumes that are not well.
	Volumes map[VolumeID][]Finding `json:"volumes,omitempty"`
}

// Reports keeps the last report of each node.
type Reports interface {
	// PutReport replaces the node's.
	PutReport(ctx context.Context, r Report) error
	// ListReports returns all of them. One that this program does not understand is left
	// out.
	ListReports(ctx context.Context) ([]Report, error)
	// DeleteReport removes that of a node. A missing one is fine.
	DeleteReport(ctx context.Context, node string) error
}

// EncodeReport returns the form in the store, within its bounds.
func EncodeReport(r Report) ([]byte, error) {
	if r.Node == "" {
		return nil, Errorf(Invalid, "report: the node is missing")
	}
	volumes := r.Volumes
	r.Volumes = nil
	body, err := json.Marshal(r)
	if err != nil {
		return nil, Errorf(Invalid, "report of node %q: %w", r.Node, err)
	}
	left := MaxReport - len(body) - len(`,"volumes":{}`)
	r.Volumes = map[VolumeID][]Finding{}
	for id, found := range volumes {
		found = bounded(found)
		one, err := json.Marshal(map[VolumeID][]Finding{id: found})
		if err != nil {
			return nil, Errorf(Invalid, "report of node %q: %w", r.Node, err)
		}
		if len(one) > left {
			continue
		}
		left -= len(one)
		r.Volumes[id] = found
	}
	if body, err = json.Marshal(r); err != nil {
		return nil, Errorf(Invalid, "report of node %q: %w", r.Node, err)
	}
	return body, nil
}

// bounded cuts what is too long.
func bounded(found []Finding) []Finding {
	var list []Finding
	for _, f := range found[:min(len(found), maxFindings)] {
		list = append(list, Finding{Status: cut(f.Status, maxReason), Reason: cut(f.Reason, maxReason), Message: cut(f.Message, maxMessage)})
	}
	return list
}

// cut keeps at most so many bytes, and whole characters.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && s[most]&0xC0 == 0x80 {
		most--
	}
	return s[:most]
}

// ParseReport reads it. What a newer program has added is passed over: it is told to
// people, and nothing is decided by it.
func ParseReport(body []byte) (Report, error) {
	if len(body) > MaxReport {
		return Report{}, Errorf(Corrupt, "report of a node: %d bytes, at most %d are possible", len(body), MaxReport)
	}
	var r Report
	if err := json.Unmarshal(body, &r); err != nil {
		return Report{}, Errorf(Corrupt, "report of a node: %w", err)
	}
	if r.Node == "" || r.Every < 0 || r.Every > MaxLeaseFor {
		return Report{}, Errorf(Corrupt, "report of node %q, every %v", r.Node, r.Every)
	}
	for id, found := range r.Volumes {
		r.Volumes[id] = bounded(found)
	}
	return r, nil
}
