package storage

import (
	"context"
	"iter"
)

// recordsPage is how many records are read at once.
const recordsPage = 500

// RecordsAfter are all records with ids greater than after, in ascending order, read
// page by page. An error is the last that it gives.
func RecordsAfter(ctx context.Context, records Records, after VolumeID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for {
			page, err := records.ListRecords(ctx, after, recordsPage)
			if err != nil {
				yield(Record{}, err)
				return
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
				after = r.ID
			}
			if len(page) < recordsPage {
				return
			}
		}
	}
}
