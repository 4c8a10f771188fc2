package clustertest_test

import (
	"testing"

	"github.com/holdfast-csi/holdfast/storage/cluster/clustertest"
)

func TestStart(t *testing.T) {
	c := clustertest.Start(t)
	for _, s := range c.Status() {
		if !s.Running || !s.Ready {
			t.Errorf("%+v", s)
		}
	}
}
