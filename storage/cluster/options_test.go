package cluster

import (
	"strings"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
)

func valid() Options {
	return Options{Dir: "/data/cluster", Weed: "/opt/weed", AdminKeys: storage.Keys{Access: "a", Secret: "s"}}
}

func TestValidate(t *testing.T) {
	if _, err := New(valid()); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Options){
		"relative folder":     func(o *Options) { o.Dir = "data" },
		"root folder":         func(o *Options) { o.Dir = "/" },
		"relative weed":       func(o *Options) { o.Weed = "weed" },
		"all addresses":       func(o *Options) { o.IP = "0.0.0.0" },
		"host name":           func(o *Options) { o.IP = "localhost" },
		"IPv6":                func(o *Options) { o.IP = "::1" },
		"no volume server":    func(o *Options) { o.VolumeServers = -1 },
		"too many of them":    func(o *Options) { o.VolumeServers = 99 },
		"replication by rack": func(o *Options) { o.Replication = "010" },
		"too few for copies":  func(o *Options) { o.Replication = "002" },
		"no keys":             func(o *Options) { o.AdminKeys = storage.Keys{} },
		"ports out of range":  func(o *Options) { o.PortBase = 65530 },
		"relative pki":        func(o *Options) { o.PKI = "pki" },
		"S3 without pki":      func(o *Options) { o.S3TLS = true },
		"client without pki":  func(o *Options) { o.Clients = []Client{{Name: "node"}} },
		"client like weed":    func(o *Options) { o.PKI, o.Clients = "/pki", []Client{{Name: "filer"}} },
		"client twice":        func(o *Options) { o.PKI, o.Clients = "/pki", []Client{{Name: "node"}, {Name: "node"}} },
		"client with a path":  func(o *Options) { o.PKI, o.Clients = "/pki", []Client{{Name: "../node"}} },
		"long folder":         func(o *Options) { o.Dir = "/" + strings.Repeat("x", 100) },
	} {
		o := valid()
		edit(&o)
		if _, err := New(o); !storage.Is(err, storage.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLongestFolder(t *testing.T) {
	o := valid()
	o.Dir = "/" + strings.Repeat("x", maxSocketPath-len("/run/filer.sock")-1)
	if err := o.Validate(); err != nil {
		t.Error(err)
	}
	o.Dir += "x"
	wantError(t, o.Validate(), storage.Invalid, "1 bytes too long")
}
