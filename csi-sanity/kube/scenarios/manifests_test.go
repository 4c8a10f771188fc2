package scenarios

import (
	"fmt"

	"github.com/holdfast-csi/holdfast/csi-sanity/kube/internal/build"
)

const system = "--namespace=holdfast-system"

// claim is a PersistentVolumeClaim.
func claim(name, mode string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %s}
spec: {storageClassName: holdfast, accessModes: [%s], resources: {requests: {storage: 1Gi}}}
---
`, name, mode)
}

// pod has a claim at /data, on that node or, with 0, on any.
func pod(name, claim string, node int, image, command string) string {
	where := "{}"
	if node != 0 {
		where = fmt.Sprintf("{kubernetes.io/hostname: node%d}", node)
	}
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeSelector: %s
  terminationGracePeriodSeconds: 1
  restartPolicy: Never
  containers:
  - {name: main, image: %s, imagePullPolicy: Never, command: %s, volumeMounts: [{name: data, mountPath: /data}]}
  volumes: [{name: data, persistentVolumeClaim: {claimName: %s}}]
---
`, name, where, image, command, claim)
}

const idle = `[sleep, infinity]`

// stateful is a StatefulSet of one pod, with a volume of one node.
func stateful(command string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, preference: {matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [node2]}]}}]}}
      containers:
      - {name: main, image: %s, imagePullPolicy: Never, command: %s, volumeMounts: [{name: data, mountPath: /data}]}
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {storageClassName: holdfast, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
`, build.ShellImage, command)
}
