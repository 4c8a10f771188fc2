package helm

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestValuesRefused: what is unknown or cannot be is refused, with the name of the value.
func TestValuesRefused(t *testing.T) {
	for name, c := range map[string]struct{ values, want string }{
		"unknown at the top":       {`replicaCount: 2`, "replicaCount"},
		"unknown deep inside":      {`seaweedfs: {volume: {persistence: {storageclass: x}}}`, "storageclass"},
		"no number":                {`controller: {replicas: two}`, "/controller/replicas"},
		"no volume server":         {`seaweedfs: {volume: {replicas: 0}}`, "/seaweedfs/volume/replicas"},
		"relative kubelet path":    {`node: {kubeletPath: var/lib/kubelet}`, "/node/kubeletPath"},
		"kubelet path with slash":  {`node: {kubeletPath: /var/lib/kubelet/}`, "/node/kubeletPath"},
		"the small-disk build":     {`seaweedfs: {image: {tag: "4.48"}}`, "/seaweedfs/image/tag"},
		"replication over racks":   {`seaweedfs: {replication: "010"}`, "/seaweedfs/replication"},
		"replication as a number":  {`seaweedfs: {replication: 1}`, "/seaweedfs/replication"},
		"a sidecar without tag":    {`sidecars: {resizer: {image: registry.k8s.io/sig-storage/csi-resizer}}`, "/sidecars/resizer/image"},
		"pull policy":              {`image: {pullPolicy: Sometimes}`, "/image/pullPolicy"},
		"size":                     {`seaweedfs: {filer: {persistence: {size: 5 GB}}}`, "/seaweedfs/filer/persistence/size"},
		"the gateway has no disk":  {`seaweedfs: {s3: {persistence: {size: 5Gi}}}`, "persistence"},
		"size of inline volumes":   {`inlineVolumes: {maxSize: 10 GB}`, "/inlineVolumes/maxSize"},
		"no inline volumes":        {`inlineVolumes: {maxSize: "0"}`, "/inlineVolumes/maxSize"},
		"deadline":                 {`mounter: {deadline: "60"}`, "/mounter/deadline"},
		"two copies on one server": {`seaweedfs: {replication: "001", volume: {replicas: 1}}`, "seaweedfs.replication"},
		"folder without nodes":     {`seaweedfs: {master: {persistence: {hostPath: {path: /srv}}}}`, "seaweedfs.master.persistence.hostPath.nodes"},
		"external without filer":   {`seaweedfs: {enabled: false}`, "seaweedfs.external"},
		"external without keys":    {`seaweedfs: {enabled: false, external: {filer: "f:1", s3Endpoint: "http://s", secrets: {controller: a, node: b, mounter: c}}}`, "seaweedfs.external.secrets.admin"},
	} {
		_, err := render(values(t, c.values))
		switch {
		case err == nil:
			t.Errorf("%s: %s is accepted", name, c.values)
		case !strings.Contains(strings.ReplaceAll(err.Error(), ".", "/"), strings.ReplaceAll(c.want, ".", "/")):
			t.Errorf("%s: the error does not name %s: %v", name, c.want, err)
		}
	}
}

// TestValuesAccepted: what users write.
func TestValuesAccepted(t *testing.T) {
	for _, text := range []string{
		`seaweedfs: {volume: {replicas: 1}}`,
		`seaweedfs: {volume: {replicas: 5, persistence: {storageClass: local, size: 100Gi}}}`,
		`image: {tag: "v1.0.0@sha256:0000000000000000000000000000000000000000000000000000000000000000"}`,
		`node: {tolerations: [], maxUnavailable: 1}`,
		`inlineVolumes: {maxSize: 1.5Ti}`,
		`global: {anything: here}`,
	} {
		if _, err := render(values(t, text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestSchemaComplete: each value of values.yaml stands in the schema, and each object there
// refuses what it does not know, so that a new value cannot be forgotten.
func TestSchemaComplete(t *testing.T) {
	var schema, defaults map[string]any
	text, err := os.ReadFile("holdfast/values.schema.json")
	if err == nil {
		err = json.Unmarshal(text, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile("holdfast/values.yaml"); err == nil {
		err = yaml.UnmarshalStrict(text, &defaults)
	}
	if err != nil {
		t.Fatal(err)
	}
	var walk func(path string, schema, defaults map[string]any)
	walk = func(path string, schema, defaults map[string]any) {
		properties, ok := schema["properties"].(map[string]any)
		if !ok {
			return // a map of the user's
		}
		if schema["additionalProperties"] != false {
			t.Errorf("%s: unknown values are not refused", path)
		}
		for name, value := range defaults {
			below, ok := properties[name].(map[string]any)
			if !ok {
				t.Errorf("%s.%s: stands in values.yaml and not in the schema", path, name)
				continue
			}
			if m, ok := value.(map[string]any); ok {
				walk(path+"."+name, below, m)
			}
		}
		for name := range properties {
			// What has no default is optional by its kind.
			if _, ok := defaults[name]; !ok && !slices.Contains([]string{"claims", "limits", "global", "type", "level", "role", "user"}, name) {
				t.Errorf("%s.%s: stands in the schema and not in values.yaml", path, name)
			}
		}
	}
	walk("", schema, defaults)
}
