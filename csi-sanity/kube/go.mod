module github.com/holdfast-csi/holdfast/csi-sanity/kube

go 1.26.0
