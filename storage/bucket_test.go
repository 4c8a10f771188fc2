package storage

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestKeysHideTheirSecret: however keys are printed, by themselves or in a record.
func TestKeysHideTheirSecret(t *testing.T) {
	k := Keys{Access: "ACCESS", Secret: "S3CRET"}
	r := Record{ID: "photos", Keys: k}
	for _, v := range []any{k, &k, r, &r, []Keys{k}, map[string]Keys{"x": k}} {
		var out bytes.Buffer
		for _, form := range []string{"%v", "%+v", "%#v", "%s"} {
			fmt.Fprintf(&out, form, v)
		}
		fmt.Fprint(&out, Errorf(Invalid, "keys %v", v))
		if strings.Contains(out.String(), "S3CRET") {
			t.Errorf("%T is printed with its secret: %s", v, out.String())
		}
	}
	for _, v := range []any{k, &k, r, &r} {
		var out bytes.Buffer
		slog.New(slog.NewJSONHandler(&out, nil)).Info("message", "value", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("message", "value", v)
		if strings.Contains(out.String(), "S3CRET") {
			t.Errorf("%T is logged with its secret: %s", v, out.String())
		}
	}
}
