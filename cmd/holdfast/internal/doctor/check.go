package doctor

import "context"

// Finding is the answer of one check.
type Finding struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	// Needed: nothing works without it. Else it is good to have.
	Needed bool `json:"needed"`
	// Detail is what was seen, Mend how to put it right where it is not.
	Detail string `json:"detail"`
	Mend   string `json:"mend,omitempty"`
}

// Check looks at one thing.
type Check func(ctx context.Context) Finding

// Run makes all checks in order.
func Run(ctx context.Context, checks []Check) []Finding {
	findings := make([]Finding, 0, len(checks))
	for _, check := range checks {
		if ctx.Err() != nil {
			break
		}
		findings = append(findings, check(ctx))
	}
	return findings
}

// FirstMissing returns the first finding that is needed and not there, or nil.
func FirstMissing(findings []Finding) *Finding {
	for i, f := range findings {
		if f.Needed && !f.OK {
			return &findings[i]
		}
	}
	return nil
}

func found(name, detail string) Finding {
	return Finding{Name: name, OK: true, Needed: true, Detail: detail}
}

func missing(name, detail, mend string) Finding {
	return Finding{Name: name, Needed: true, Detail: detail, Mend: mend}
}
