module github.com/holdfast-csi/holdfast/csi-sanity/kube

go 1.26.0

require github.com/moby/sys/mountinfo v0.7.3

require golang.org/x/sys v0.49.0 // indirect
