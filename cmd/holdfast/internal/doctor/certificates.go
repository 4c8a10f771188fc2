package doctor

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfast-csi/holdfast/cmd/holdfast/internal/state"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// Certificates looks at whether those that let in to the cluster have ended. Of an
// installation that does not run they are renewed at its start.
func Certificates(dir state.Dir, running bool) Check {
	return func(context.Context) Finding {
		const name = "certificates"
		ends, err := pki.Ends(dir.PKI())
		if err != nil {
			return missing(name, err.Error(), "move "+dir.PKI()+" away; the next holdfast up makes new ones")
		}
		if len(ends) == 0 {
			return found(name, "holdfast up makes them")
		}
		first := ends[0]
		for _, e := range ends {
			if e.At.Before(first.At) {
				first = e
			}
		}
		if len(pki.Ended(ends, time.Now())) == 0 {
			return found(name, fmt.Sprintf("good until %s, and renewed before", first.At.Format(time.DateOnly)))
		}
		f := missing(name, fmt.Sprintf("that of %s ended at %s", first.Name, first.At.Format(time.DateTime)), "run: holdfast down, then holdfast up")
		if !running {
			f.Needed, f.Mend = false, "holdfast up renews them"
		}
		return f
	}
}
