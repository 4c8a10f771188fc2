// Package helm holds the tests of the chart beside it, as a module of its own: the
// product does not depend on Helm. The Helm that the tests use is here as a tool:
//
//	go build -o helm helm.sh/helm/v4/cmd/helm
package helm
