package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/supervise"
	"github.com/holdfast-csi/holdfast/storage/cluster/wholefile"
)

const (
	// kekBytes is the length of the key that wraps the keys of encrypted objects.
	kekBytes = 32
	// adminName is the S3 identity of AdminKeys.
	adminName = "holdfast-admin"
)

// growth makes one volume at a time for each bucket: weed's own seven would use
// up the slots seven times as fast.
const growth = `[master.volume_growth]
copy_1 = 1
copy_2 = 1
copy_3 = 1
copy_other = 1
`

// filerStore is what weed would choose by itself; written down because a missing
// file would be looked for in /etc and in HOME.
func filerStore(dir string) string {
	return fmt.Sprintf("[leveldb2]\nenabled = true\ndir = %q\n", dir)
}

// none stands in the files that are there to be found first.
const none = "# Nothing, on purpose: weed takes the first file of this name that it finds.\n"

// confFiles are the files that weed looks for by name, beside security.toml. The
// working directory comes first in its search. The filer keeps its names in filerDir,
// absolute or relative to that.
func confFiles(filerDir string) map[string]string {
	return map[string]string{
		"master.toml":       growth,
		"filer.toml":        filerStore(filerDir),
		"credential.toml":   none,
		"notification.toml": none,
		"replication.toml":  none,
		"shell.toml":        none,
	}
}

// identities is the part of SeaweedFS's s3.json that we use.
type identities struct {
	Identities []identity `json:"identities"`
}

type identity struct {
	Name        string       `json:"name"`
	Credentials []credential `json:"credentials"`
	Actions     []string     `json:"actions"`
}

type credential struct {
	AccessKey string `json:"accessKey"`
	SecretKey string `json:"secretKey"`
}

// s3ConfigName is the gateway's static identities, in the folder conf.
const s3ConfigName = "s3.json"

// writeConfig writes all configuration anew and returns the key that encrypts
// the keys of encrypted objects, which is made once and then kept.
func (d folder) writeConfig(o Options) (kek string, err error) {
	keys, user := o.AdminKeys, o.User
	for name, content := range confFiles(filepath.Join("..", filerName, "leveldb2")) {
		if err := writeFile(filepath.Join(d.conf(), name), []byte(content), 0o644, nil); err != nil {
			return "", err
		}
	}
	admin, err := adminIdentity(keys)
	if err != nil {
		return "", err
	}
	for name, content := range map[string][]byte{s3ConfigName: admin, securityName: o.security()} {
		if err := writeFile(filepath.Join(d.conf(), name), content, 0o600, user); err != nil {
			return "", err
		}
	}
	return d.kek()
}

// adminIdentity is the content of the gateway's static identities.
func adminIdentity(keys storage.Keys) ([]byte, error) {
	b, err := json.MarshalIndent(identities{[]identity{{
		Name:        adminName,
		Credentials: []credential{{AccessKey: keys.Access, SecretKey: keys.Secret}},
		Actions:     []string{"Admin"},
	}}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("admin identity: %w", err)
	}
	return b, nil
}

// newKEK makes a key that encrypts the keys of encrypted objects.
func newKEK() []byte {
	key := make([]byte, kekBytes)
	rand.Read(key)
	return []byte(hex.EncodeToString(key))
}

// checkKEK says what is wrong with one. Where is told.
func checkKEK(text, where string) error {
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != kekBytes {
		return storage.Errorf(storage.Corrupt, "%s is not %d hexadecimal digits: encrypted objects cannot be read without it", where, 2*kekBytes)
	}
	return nil
}

// kek returns the key, making it in a new folder. Losing it loses every object
// that was stored encrypted, so a damaged file is an error and never replaced.
func (d folder) kek() (string, error) {
	path := filepath.Join(d.secret(), "sse-kek")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		b = newKEK()
		return string(b), writeFile(path, b, 0o600, nil)
	}
	if err != nil {
		return "", fileError(err)
	}
	kek := strings.TrimSpace(string(b))
	return kek, checkKEK(kek, path)
}

// writeFile writes a file whole or not at all, flushed, for user where given.
func writeFile(path string, content []byte, mode fs.FileMode, user *supervise.User) error {
	return fileError(wholefile.Write(path, content, mode, (*wholefile.Owner)(user)))
}
