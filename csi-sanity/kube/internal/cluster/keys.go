package cluster

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"time"
)

// keyLife is longer than any run, and short enough that a forgotten key is
// worth nothing.
const keyLife = 30 * 24 * time.Hour

// authority signs all certificates of one cluster.
type authority struct {
	folder Folder
	cert   *x509.Certificate
	key    crypto.Signer
	serial int64
}

// makeKeys writes the cluster's authority, a certificate and a kubeconfig for
// each component, and the key that signs service accounts' tokens.
func makeKeys(f Folder, nodes int) error {
	if err := os.MkdirAll(f.path("keys"), 0o700); err != nil {
		return err
	}
	a := &authority{folder: f}
	if err := a.makeOwn(); err != nil {
		return err
	}
	server := []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + clusterDomain,
		"127.0.0.1", controlAddress, apiServiceAddress,
	}
	type identity struct {
		name, user, group string
		addresses         []string
	}
	identities := []identity{
		{"apiserver", "kube-apiserver", "", server},
		{"apiserver-kubelet", "apiserver-kubelet", "system:masters", nil},
		{"admin", "admin", "system:masters", nil},
		{"controller-manager", "system:kube-controller-manager", "", nil},
		{"scheduler", "system:kube-scheduler", "", nil},
		{"proxy", "system:kube-proxy", "", nil},
	}
	for n := 1; n <= nodes; n++ {
		identities = append(identities, identity{nodeName(n), "system:node:" + nodeName(n), "system:nodes", []string{nodeName(n), nodeAddress(n)}})
	}
	for _, i := range identities {
		if err := a.issue(i.name, i.user, i.group, i.addresses); err != nil {
			return fmt.Errorf("certificate of %s: %w", i.name, err)
		}
		if err := a.writeKubeconfig(i.name); err != nil {
			return err
		}
	}

	tokens, err := newKey()
	if err != nil {
		return err
	}
	if err := writeKey(f.path("keys", "service-accounts.key"), tokens); err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(tokens.Public())
	if err != nil {
		return err
	}
	return writePEM(f.path("keys", "service-accounts.pub"), "PUBLIC KEY", public)
}

func (a *authority) makeOwn() error {
	key, err := newKey()
	if err != nil {
		return err
	}
	a.cert = a.template(pkix.Name{CommonName: "holdfast-e2e"})
	a.cert.IsCA, a.cert.BasicConstraintsValid = true, true
	a.cert.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	a.key = key
	return a.sign("ca", a.cert, key)
}

func (a *authority) issue(name, user, group string, addresses []string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	subject := pkix.Name{CommonName: user}
	if group != "" {
		subject.Organization = []string{group}
	}
	cert := a.template(subject)
	cert.KeyUsage = x509.KeyUsageDigitalSignature
	cert.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, address := range addresses {
		if ip := net.ParseIP(address); ip != nil {
			cert.IPAddresses = append(cert.IPAddresses, ip)
		} else {
			cert.DNSNames = append(cert.DNSNames, address)
		}
	}
	return a.sign(name, cert, key)
}

func (a *authority) template(subject pkix.Name) *x509.Certificate {
	a.serial++
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: big.NewInt(a.serial), Subject: subject,
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(keyLife),
	}
}

func (a *authority) sign(name string, cert *x509.Certificate, key crypto.Signer) error {
	der, err := x509.CreateCertificate(rand.Reader, cert, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	if err := writeKey(a.folder.path("keys", name+".key"), key); err != nil {
		return err
	}
	return writePEM(a.folder.path("keys", name+".crt"), "CERTIFICATE", der)
}

func (a *authority) writeKubeconfig(name string) error {
	return render("kubeconfig.yaml", a.folder.path("keys", name+".kubeconfig"), map[string]any{
		"Name": name, "Keys": a.folder.path("keys"), "Server": apiServerURL,
	})
}

func newKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
