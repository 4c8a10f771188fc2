package storage

import (
	"context"
	"time"
)

// Inline is what a record has beside of an inline volume: one that stands in a pod's
// specification, and whose bucket goes with the pod. The node process writes the record,
// the controller makes the bucket, and deletes it once the node has given it up, or
// somebody who knows has said that the pod is gone (PodGone) and nobody's lease lives.
type Inline struct {
	// Node that the pod is on, as leases name it.
	Node string `json:"node"`
	Pod  Pod    `json:"pod"`
	// PodGone is when it was said that there is no such pod any more. It is never taken
	// back, for a pod that is gone does not return under its UID.
	PodGone time.Time `json:"podGone,omitzero"`
}

// Pod is one of Kubernetes.
type Pod struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// InlinePods lists the pods that have inline volumes and are not known to be gone, each
// once. Whoever watches pods asks for these.
func InlinePods(ctx context.Context, records Records) ([]Pod, error) {
	var pods []Pod
	seen := map[string]bool{}
	err := eachInline(ctx, records, func(r Record) error {
		if p := r.Inline.Pod; r.Inline.PodGone.IsZero() && r.Phase != Deleting && !seen[p.UID] {
			seen[p.UID] = true
			pods = append(pods, p)
		}
		return nil
	})
	return pods, err
}

// PodGone notes that there is no pod with that UID any more: the word of the Kubernetes
// API, about this very UID, and not that a node does not answer. The pod's inline
// volumes are deleted then, once no node has a lease on them: a node that is cut off
// from the API and not from the cluster keeps what its containers still write to. It may
// be repeated, and returns how many volumes it has noted it of.
func PodGone(ctx context.Context, records Records, uid string) (noted int, err error) {
	if uid == "" {
		return 0, Errorf(Invalid, "the UID of the pod is missing")
	}
	err = eachInline(ctx, records, func(r Record) error {
		for r.Inline != nil && r.Inline.Pod.UID == uid && r.Inline.PodGone.IsZero() && r.Phase != Deleting {
			gone := *r.Inline
			gone.PodGone = time.Now().UTC()
			r.Inline = &gone
			_, err := records.UpdateRecord(ctx, r)
			if err == nil {
				noted++
				return nil
			}
			if !Is(err, Changed) { // a lease was renewed meanwhile, say
				return err
			}
			if r, err = records.GetRecord(ctx, r.ID); Is(err, NotFound) {
				return nil
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	return noted, err
}

// eachInline calls do for each inline volume.
func eachInline(ctx context.Context, records Records, do func(Record) error) error {
	for r, err := range RecordsAfter(ctx, records, "") {
		if err != nil {
			return err
		}
		if r.Inline == nil {
			continue
		}
		if err := do(r); err != nil {
			return err
		}
	}
	return nil
}
