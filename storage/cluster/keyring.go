package cluster

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/cluster/pki"
)

// This file is for a cluster whose processes somebody else starts, each in a place of
// its own, as the chart does: what each of them finds in its folder is what it would
// find here. Nothing of it touches a disk or a network.
//
// Each part stands by itself, a map of file names to contents, so that nobody holds more
// than he needs. Four parts cannot be made again as they were (roots): the rest follows
// from them. One folder with everything for all would have been less; but then the
// master's pod would hold the gateway's keys.

// The roots, by their parts' names and by the files in them.
const (
	authorityPart = "ca"
	tokensPart    = "tokens"
	ssePart       = "sse-key"
	adminPart     = "s3-admin"

	authorityFile = "ca.key"
	tokensFile    = "tokens.json"
	sseFile       = "sse-key"
	adminFile     = "keys.json"
)

// caFile is the authority's certificate, in each part but the roots.
const caFile = "ca.crt"

// KeyringOptions say for whom a Keyring is.
type KeyringOptions struct {
	// Dir is the folder in which each holder finds the files of its part. Absolute.
	Dir string
	// FilerDir is the folder of the filer's names. Absolute.
	FilerDir string
	// Addresses are those by which the roles' servers are reached, DNS names or IP
	// addresses, under "master", "volume", "filer" and "s3".
	Addresses map[string][]string
	// Clients are the holders beside weed's own processes. Their Owner has no meaning.
	Clients []Client
	// S3TLS adds the certificate that the gateway shows to S3 clients.
	S3TLS bool
}

// Keyring makes the parts.
type Keyring struct{ o KeyringOptions }

// NewKeyring checks the options.
func NewKeyring(o KeyringOptions) (*Keyring, error) {
	for name, dir := range map[string]string{"folder of the parts": o.Dir, "folder of the filer": o.FilerDir} {
		if !path.IsAbs(dir) {
			return nil, storage.Errorf(storage.Invalid, "%s %q: must be an absolute path", name, dir)
		}
	}
	roles := []string{masterName, volumeRole, filerName, s3Name}
	for role := range o.Addresses {
		if !slices.Contains(roles, role) {
			return nil, storage.Errorf(storage.Invalid, "addresses of %q: must be of one of %v", role, roles)
		}
	}
	for _, c := range o.Clients {
		if !clientPattern.MatchString(c.Name) || slices.Contains(roles, c.Name) || slices.Contains([]string{gatewayName, AdminName, authorityPart, tokensPart}, c.Name) {
			return nil, storage.Errorf(storage.Invalid, "client %q: must be a word of small letters that names nobody else", c.Name)
		}
	}
	return &Keyring{o}, nil
}

// Names of all parts, each after those that it is made from.
func (k *Keyring) Names() []string {
	names := append(k.Roots(), masterName, volumeRole, filerName, s3Name)
	for _, c := range k.o.Clients {
		names = append(names, c.Name)
	}
	return names
}

// Roots are the names of the parts that cannot be made again as they were.
func (k *Keyring) Roots() []string {
	return []string{authorityPart, tokensPart, ssePart, adminPart}
}

// Lost says what it means that a root was there once and is gone: what is made in its
// place, and what a person has to do. It is empty where nothing is lost. all are the
// parts that are there.
func (k *Keyring) Lost(part string, all map[string]map[string][]byte) string {
	if part == ssePart && all[s3Name][sseFile] != nil {
		return "" // it is taken back from there
	}
	return map[string]string{
		authorityPart: "there is a new certificate authority, and every certificate is signed anew; processes that run know the old one, so restart master, volume, filer and s3 now: until then nothing new is let in, and mounts wait",
		tokensPart:    "there are new keys for the tokens of writes; restart master, volume, filer and s3 now: until then writes are refused",
		ssePart:       "there is a new key for encrypted objects: what was stored encrypted under the old one can never be read again, unless the old one is put back",
		adminPart:     "the administrator has new S3 keys; restart s3 and the controller: until then the old ones are valid",
	}[part]
}

// Make returns a part as it shall be. have is what there is of it, nil for nothing, and
// all are the other parts as they are, by name. What is good stays as it is, so the same
// call again changes nothing. Corrupt: a root is damaged, and is not replaced, since
// what it was may still be somewhere.
func (k *Keyring) Make(part string, have map[string][]byte, all map[string]map[string][]byte, now time.Time) (map[string][]byte, error) {
	switch part {
	case authorityPart:
		return k.authority(have, now)
	case tokensPart:
		return k.tokens(have)
	case ssePart:
		return k.sse(have, all[s3Name])
	case adminPart:
		return k.admin(have)
	}
	leaf, ok := k.leaf(part)
	if !ok {
		return nil, storage.Errorf(storage.NotFound, "part %q: there is none", part)
	}
	signer, err := pki.ParseSigner(all[authorityPart][authorityFile])
	if err != nil {
		return nil, storage.Errorf(storage.Corrupt, "certificate authority: %w", err)
	}
	want := map[string][]byte{caFile: signer.CertPEM()}
	if err := certify(want, have, signer, leaf, now); err != nil || !leaf.Server {
		return want, err
	}
	return want, k.configure(want, have, part, signer, all, now)
}

// Warning says what somebody should know of the roots though nothing is wrong yet; empty
// when there is nothing.
func (k *Keyring) Warning(all map[string]map[string][]byte, now time.Time) string {
	signer, err := pki.ParseSigner(all[authorityPart][authorityFile])
	if err != nil || !signer.Ends(now) {
		return ""
	}
	return fmt.Sprintf("the certificate authority ends at %s: when it suits you, delete it and restart master, volume, filer and s3", signer.NotAfter().Format(time.RFC3339))
}

// leaf is the certificate of a part.
func (k *Keyring) leaf(part string) (pki.Leaf, bool) {
	if slices.Contains([]string{masterName, volumeRole, filerName, s3Name}, part) {
		return weedLeaf(part, k.addresses(part), nil), true
	}
	for _, c := range k.o.Clients {
		if c.Name == part {
			return clientLeaf(c), true
		}
	}
	return pki.Leaf{}, false
}

func (k *Keyring) addresses(role string) []string {
	return append([]string{"localhost"}, k.o.Addresses[role]...)
}

// certify puts a holder's key and certificate into want: those that are there, while
// they are good.
func certify(want, have map[string][]byte, signer *pki.Signer, l pki.Leaf, now time.Time) error {
	name := pki.FilesIn("", l.Name).Cert
	if text := have[name]; signer.Good(l, text, now) {
		want[name] = text
		return nil
	}
	text, err := signer.Sign(l, now)
	if err != nil {
		return fmt.Errorf("certificate of %s: %w", l.Name, err)
	}
	want[name] = text
	return nil
}

// configure adds what one of weed's processes reads at its start.
func (k *Keyring) configure(want, have map[string][]byte, role string, signer *pki.Signer, all map[string]map[string][]byte, now time.Time) error {
	tokens, err := parseTokens(all[tokensPart][tokensFile])
	if err != nil {
		return err
	}
	for name, content := range confFiles(k.o.FilerDir) {
		want[name] = []byte(content)
	}
	// Its own certificate is the only one that it has.
	own := pki.FilesIn(k.o.Dir, role)
	want[securityName] = security{
		tokens: tokens, allowed: allowed(k.o.Clients), ca: own.CA, cert: func(string) string { return own.Cert },
	}.toml()
	if role != s3Name {
		return nil
	}
	keys, err := parseKeys(all[adminPart][adminFile])
	if err != nil {
		return err
	}
	if want[s3ConfigName], err = adminIdentity(keys); err != nil {
		return err
	}
	want[sseFile] = all[ssePart][sseFile]
	if k.o.S3TLS {
		return certify(want, have, signer, weedLeaf(gatewayName, k.addresses(s3Name), nil), now)
	}
	return nil
}

func (k *Keyring) authority(have map[string][]byte, now time.Time) (map[string][]byte, error) {
	if text := have[authorityFile]; text != nil {
		signer, err := pki.ParseSigner(text)
		if err != nil {
			return nil, storage.Errorf(storage.Corrupt, "%s: %w; put it right, or delete it, and a new authority is made", authorityFile, err)
		}
		// In its last year it is still a person's to choose the moment (Warning).
		if now.Before(signer.NotAfter()) {
			return have, nil
		}
	}
	signer, err := pki.NewSigner(now)
	if err != nil {
		return nil, err
	}
	text, err := signer.PEM()
	return map[string][]byte{authorityFile: text}, err
}

func (k *Keyring) tokens(have map[string][]byte) (map[string][]byte, error) {
	if text := have[tokensFile]; text != nil {
		_, err := parseTokens(text)
		return have, err
	}
	text, err := json.Marshal(newTokens())
	return map[string][]byte{tokensFile: text}, err
}

func parseTokens(text []byte) (map[string]string, error) {
	var keys map[string]string
	err := json.Unmarshal(text, &keys)
	for _, section := range tokenSections {
		if err != nil || keys[section] == "" {
			return nil, storage.Errorf(storage.Corrupt, "%s: must be an object with a key for each of %v; put it right, or delete it, and new ones are made", tokensFile, tokenSections)
		}
	}
	return keys, nil
}

// sse takes the key back from the gateway's part where it is gone: there is no other
// way to read what was encrypted under it.
func (k *Keyring) sse(have, gateway map[string][]byte) (map[string][]byte, error) {
	for _, text := range [][]byte{have[sseFile], gateway[sseFile]} {
		if text != nil {
			return map[string][]byte{sseFile: text}, checkKEK(string(text), sseFile)
		}
	}
	return map[string][]byte{sseFile: newKEK()}, nil
}

func (k *Keyring) admin(have map[string][]byte) (map[string][]byte, error) {
	if text := have[adminFile]; text != nil {
		_, err := parseKeys(text)
		return have, err
	}
	text, err := json.Marshal(NewAdminKeys())
	return map[string][]byte{adminFile: text}, err
}

// NewAdminKeys makes keys for the administrator.
func NewAdminKeys() storage.Keys {
	return storage.Keys{Access: rand.Text()[:20], Secret: rand.Text() + rand.Text()}
}

func parseKeys(text []byte) (storage.Keys, error) {
	var keys storage.Keys
	if err := json.Unmarshal(text, &keys); err != nil || keys.Access == "" || keys.Secret == "" {
		return keys, storage.Errorf(storage.Corrupt, `%s: must be {"access": "…", "secret": "…"}; put it right, or delete it, and new keys are made`, adminFile)
	}
	return keys, nil
}
