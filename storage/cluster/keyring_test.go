package cluster

import (
	"bytes"
	"crypto/tls"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

func newKeyring(t *testing.T) *Keyring {
	t.Helper()
	k, err := NewKeyring(KeyringOptions{
		Dir: "/etc/holdfast", FilerDir: "/data/leveldb2", S3TLS: true,
		Addresses: map[string][]string{"volume": {"*.peers.test.svc"}, "s3": {"s3.test.svc"}},
		Clients:   []Client{{Name: "controller", Master: true}, {Name: "mounter"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// makeAll makes every part from what is there.
func makeAll(t *testing.T, k *Keyring, have map[string]map[string][]byte, now time.Time) map[string]map[string][]byte {
	t.Helper()
	all := maps.Clone(have)
	if all == nil {
		all = map[string]map[string][]byte{}
	}
	for _, part := range k.Names() {
		data, err := k.Make(part, all[part], all, now)
		if err != nil {
			t.Fatalf("part %s: %v", part, err)
		}
		all[part] = data
	}
	return all
}

func changed(a, b map[string]map[string][]byte) (parts []string) {
	for part := range b {
		if !maps.EqualFunc(a[part], b[part], bytes.Equal) {
			parts = append(parts, part)
		}
	}
	slices.Sort(parts)
	return parts
}

// TestKeyring: what each part holds, and that nothing changes until it has to.
func TestKeyring(t *testing.T) {
	k, now := newKeyring(t), time.Now()
	all := makeAll(t, k, nil, now)

	for part, want := range map[string][]string{
		"ca": {"ca.key"}, "tokens": {"tokens.json"}, "sse-key": {"sse-key"}, "s3-admin": {"keys.json"},
		"controller": {"ca.crt", "controller.pem"}, "mounter": {"ca.crt", "mounter.pem"},
		"s3": {"ca.crt", "credential.toml", "filer.toml", "gateway.pem", "master.toml", "notification.toml", "replication.toml", "s3.json", "s3.pem", "security.toml", "shell.toml", "sse-key"},
	} {
		if got := slices.Sorted(maps.Keys(all[part])); !slices.Equal(got, want) {
			t.Errorf("part %s holds %v, want %v", part, got, want)
		}
	}
	// Nobody's part has the key of another.
	for part, files := range all {
		for name := range files {
			if owner, isKey := strings.CutSuffix(name, ".pem"); isKey && owner != part && (owner != "gateway" || part != "s3") {
				t.Errorf("part %s holds %s", part, name)
			}
		}
	}
	cert, err := tls.X509KeyPair(all["volume"]["volume.pem"], all["volume"]["volume.pem"])
	if err != nil {
		t.Fatal(err)
	}
	if err := cert.Leaf.VerifyHostname("volume-3.peers.test.svc"); err != nil {
		t.Error(err)
	}
	security := string(all["filer"]["security.toml"])
	for _, want := range []string{
		`allowed_commonNames = "holdfast-master,holdfast-volume,holdfast-filer,holdfast-s3,holdfast-admin,holdfast-controller,holdfast-mounter"`,
		`cert = "/etc/holdfast/filer.pem"`, `ca = "/etc/holdfast/ca.crt"`,
	} {
		if !strings.Contains(security, want) {
			t.Errorf("security.toml lacks %s:\n%s", want, security)
		}
	}
	if strings.Contains(security, "s3.pem") {
		t.Error("the filer is to show the gateway's certificate, which it does not have")
	}

	if got := changed(all, makeAll(t, k, all, now.Add(19*24*time.Hour))); got != nil {
		t.Errorf("after 19 days %v are made anew", got)
	}
	later := makeAll(t, k, all, now.Add(21*24*time.Hour))
	if got, want := changed(all, later), []string{"controller", "filer", "master", "mounter", "s3", "volume"}; !slices.Equal(got, want) {
		t.Errorf("after 21 days %v are made anew, want %v", got, want)
	}
	if !bytes.Equal(all["filer"]["security.toml"], later["filer"]["security.toml"]) {
		t.Error("a renewal changes what weed reads only at its start")
	}
	if k.Warning(all, now) != "" || !strings.Contains(k.Warning(all, now.Add(3285*24*time.Hour+24*time.Hour)), "ends at") {
		t.Error("the authority's last year is not told, or too early")
	}
}

// TestKeyringLoss: which parts follow when a root is gone, and what is said.
func TestKeyringLoss(t *testing.T) {
	k, now := newKeyring(t), time.Now()
	all := makeAll(t, k, nil, now)
	for root, want := range map[string][]string{
		"ca":       {"ca", "controller", "filer", "master", "mounter", "s3", "volume"},
		"tokens":   {"filer", "master", "s3", "tokens", "volume"},
		"s3-admin": {"s3", "s3-admin"},
		"sse-key":  nil, // taken back from the gateway's
	} {
		left := maps.Clone(all)
		delete(left, root)
		if said := k.Lost(root, left); (said == "") != (root == "sse-key") {
			t.Errorf("of a lost %s is said %q", root, said)
		}
		if got := changed(all, makeAll(t, k, left, now)); !slices.Equal(got, want) {
			t.Errorf("without %s, %v change, want %v", root, got, want)
		}
	}
	left := maps.Clone(all)
	delete(left, "sse-key")
	delete(left, "s3")
	if !strings.Contains(k.Lost("sse-key", left), "can never be read again") {
		t.Error("the loss of the key of encrypted objects is not told")
	}
	if k.Lost("filer", left) != "" {
		t.Error("a certificate is told as lost")
	}
}

// TestKeyringDamage: a damaged root is an error, and nothing is made in its place.
func TestKeyringDamage(t *testing.T) {
	k, now := newKeyring(t), time.Now()
	all := makeAll(t, k, nil, now)
	for root, file := range map[string]string{"ca": "ca.key", "tokens": "tokens.json", "s3-admin": "keys.json", "sse-key": "sse-key"} {
		data, err := k.Make(root, map[string][]byte{file: []byte("damaged")}, all, now)
		if !storage.Is(err, storage.Corrupt) || !strings.Contains(err.Error(), file) {
			t.Errorf("root %s: %v, want Corrupt with the file's name", root, err)
		}
		if data != nil && !bytes.Equal(data[file], []byte("damaged")) {
			t.Errorf("root %s: is replaced", root)
		}
	}
	// A certificate is no root: it is made anew.
	data, err := k.Make("mounter", map[string][]byte{"mounter.pem": []byte("damaged")}, all, now)
	signer, parseErr := pki.ParseSigner(all["ca"]["ca.key"])
	if err != nil || parseErr != nil || !signer.Good(pki.Leaf{Name: "mounter", Client: true}, data["mounter.pem"], now) {
		t.Errorf("a damaged certificate: %v, %v", err, parseErr)
	}
	if _, err := k.Make("stranger", nil, all, now); !storage.Is(err, storage.NotFound) {
		t.Errorf("a part that there is not: %v", err)
	}
}

func TestKeyringOptions(t *testing.T) {
	for name, o := range map[string]KeyringOptions{
		"relative folder": {Dir: "etc", FilerDir: "/data"},
		"unknown role":    {Dir: "/etc", FilerDir: "/data", Addresses: map[string][]string{"mastre": {"x"}}},
		"a root's name":   {Dir: "/etc", FilerDir: "/data", Clients: []Client{{Name: "tokens"}}},
		"a role's name":   {Dir: "/etc", FilerDir: "/data", Clients: []Client{{Name: "filer"}}},
	} {
		if _, err := NewKeyring(o); !storage.Is(err, storage.Invalid) {
			t.Errorf("%s: %v, want Invalid", name, err)
		}
	}
}
