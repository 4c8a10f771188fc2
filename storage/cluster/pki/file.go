package pki

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/holdfast-csi/holdfast/storage"
)

// pair is a key with its certificate.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// readPair reads a key and its certificate from one file.
func readPair(path string) (pair, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return pair{}, err
	}
	p, err := parseKeyPair(b)
	if err != nil {
		return pair{}, storage.Errorf(storage.Corrupt, "%s: %w", path, err)
	}
	return p, nil
}

func parseKeyPair(text []byte) (pair, error) {
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return pair{}, err
	}
	key, ok := c.PrivateKey.(crypto.Signer)
	if !ok {
		return pair{}, errors.New("a key that cannot sign")
	}
	return pair{c.Leaf, key}, nil
}

func encodePair(p pair) ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(p.key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), encodeCert(p.cert)...), nil
}

func encodeCert(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

// makeFolder makes the folder of an authority: others may open what they own in
// it, and see no list.
func makeFolder(dir string) error {
	err := os.Mkdir(dir, 0o711)
	if err == nil || errors.Is(err, fs.ErrExist) {
		err = os.Chmod(dir, 0o711) // whatever the umask
	}
	if err != nil {
		return fmt.Errorf("folder of certificates: %w", err)
	}
	return nil
}
