package scenarios

import (
	"testing"
	"time"
)

// bucketThatIsThere: the example of a bucket from before. Its files are in a pod, and it
// outlives the PersistentVolume.
func bucketThatIsThere(t *testing.T) {
	const bucket = "photos-from-before" // of deploy/examples/bucket.yaml
	s3Put(t, bucket, "")
	s3Put(t, bucket+"/cat.txt", "miaow")
	shell(t, time.Minute, "kubectl apply -f deploy/examples/bucket.yaml")
	gone := false
	t.Cleanup(func() {
		if !gone {
			showNamespace(t, "default")
			remove(t, "pod/old-photos", "persistentvolumeclaim/old-photos", "persistentvolume/old-photos")
		}
	})
	within(t, 2*time.Minute, "wait", "pod/old-photos", "--for=condition=Ready", "--timeout=110s")
	if got := inPod(t, "--namespace=default", "old-photos", "cat /photos/cat.txt"); got != "miaow" {
		t.Errorf("in the pod the object holds %q", got)
	}
	inPod(t, "--namespace=default", "old-photos", "echo woof > /photos/dog.txt")

	shell(t, 2*time.Minute, "kubectl delete -f deploy/examples/bucket.yaml --grace-period=1")
	gone = true
	for name, want := range map[string]string{"cat.txt": "miaow", "dog.txt": "woof\n"} {
		if got := s3Get(t, bucket+"/"+name); got != want {
			t.Errorf("with the PersistentVolume gone %s holds %q, want %q", name, got, want)
		}
	}
}
