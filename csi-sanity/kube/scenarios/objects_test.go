package scenarios

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// s3Get reads an object by a signed request, with the administrator's keys.
func s3Get(t *testing.T, key string) string {
	t.Helper()
	var secret struct{ Data map[string][]byte }
	text := within(t, 10*time.Second, "get", system, "secret/holdfast-s3-admin", "-o", "json")
	if err := json.Unmarshal([]byte(text), &secret); err != nil {
		t.Fatal(err)
	}
	var keys struct{ Access, Secret string }
	if err := json.Unmarshal(secret.Data["keys.json"], &keys); err != nil {
		t.Fatalf("keys.json of Secret holdfast-s3-admin: %v", err)
	}
	address := within(t, 10*time.Second, "get", system, "service/holdfast-s3", "-o", "jsonpath={.spec.clusterIP}:{.spec.ports[0].port}")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	// The keys go by a file descriptor: arguments are seen by every user.
	cmd := exec.CommandContext(ctx, "curl", "--silent", "--show-error", "--fail", "--config", "-", "--aws-sigv4", "aws:amz:us-east-1:s3", "http://"+address+"/"+key)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("user = %q\n", keys.Access+":"+keys.Secret))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("GET %s: %v: %s", key, err, &stderr)
	}
	return string(out)
}
