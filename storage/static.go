package storage

import "time"

// Static is what a record has beside of a volume that an administrator's PersistentVolume
// has brought in: a bucket that was there, and that no volume had. The node process that
// is to mount it first writes the record; a controller judges it, and makes the volume's
// user, or says why not.
type Static struct {
	// Refusal is why the bucket cannot be had, and Refused when that was said. The
	// controller forgets it with the record, so that it is judged anew.
	Refusal *Refusal  `json:"refusal,omitempty"`
	Refused time.Time `json:"refused,omitzero"`
}

// Refusal is an error that is told by way of the store.
type Refusal struct {
	Kind Kind   `json:"kind"`
	Text string `json:"text"`
}

// Err is the error.
func (r *Refusal) Err() error { return Errorf(r.Kind, "%s", r.Text) }
