package scenarios

import "testing"

// TestSideBySide is what disturbs nobody: the storage suite, which takes minutes and waits
// most of them, and beside it all that only makes pods. No node ends meanwhile.
func TestSideBySide(t *testing.T) {
	settle(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"StorageSuite", storageSuite},
		{"HundredPods", hundredPods},
		{"PodShapes", podShapes},
		{"S3Secret", s3Secret},
		{"BucketThatIsThere", bucketThatIsThere},
		{"PlainManifests", plainManifests},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t)
		})
	}
}
