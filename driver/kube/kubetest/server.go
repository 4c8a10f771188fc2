package kubetest

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Bin is the environment variable with the folder of the programs.
const Bin = "HOLDFAST_KUBE_BIN"

// startTime bounds the start of the real one, on a machine that does much else.
const startTime = 2 * time.Minute

// Server is a real API server that runs until the test ends.
type Server struct {
	// Admin may do everything.
	Admin *rest.Config
	// Kubeconfig is Admin as a file.
	Kubeconfig string
}

// Start starts one, or skips the test.
func Start(t *testing.T) *Server {
	t.Helper()
	bin := os.Getenv(Bin) //nolint:forbidigo // for tests alone
	if bin == "" {
		t.Skipf("%s names no folder with etcd, kube-apiserver and kube-controller-manager", Bin)
	}
	dir, err := os.MkdirTemp("", "hf-kube-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // only files of these three, and no mount
		if err := os.RemoveAll(dir); err != nil { //nolint:forbidigo // as above
			t.Errorf("clean up: %v", err)
		}
	})
	s := &server{t: t, bin: bin, dir: dir}
	token := rand.Text()
	s.write("tokens.csv", token+",admin,admin,system:masters\n")
	s.write("service-account.key", key(t))
	etcd, peer, secure := s.port(), s.port(), s.port()
	s.start("etcd", "--data-dir", s.path("etcd"), "--unsafe-no-fsync", "--log-level", "error",
		"--listen-client-urls", "http://"+etcd, "--advertise-client-urls", "http://"+etcd,
		"--listen-peer-urls", "http://"+peer, "--initial-advertise-peer-urls", "http://"+peer, "--initial-cluster", "default=http://"+peer)
	_, port, err := net.SplitHostPort(secure)
	if err != nil {
		t.Fatal(err)
	}
	s.start("kube-apiserver", "--etcd-servers", "http://"+etcd, "--bind-address", "127.0.0.1", "--secure-port", port,
		"--cert-dir", s.path("apiserver"), "--token-auth-file", s.path("tokens.csv"), "--authorization-mode", "RBAC",
		"--service-account-issuer", "https://kubernetes.default.svc", "--service-account-key-file", s.path("service-account.key"),
		"--service-account-signing-key-file", s.path("service-account.key"), "--service-cluster-ip-range", "10.0.0.0/24",
		"--disable-admission-plugins", "ServiceAccount", "--endpoint-reconciler-type", "none", "--advertise-address", "192.0.2.1")
	out := &Server{
		Admin:      &rest.Config{Host: "https://" + secure, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: -1},
		Kubeconfig: s.path("kubeconfig"),
	}
	config := api.NewConfig()
	config.Clusters["test"] = &api.Cluster{Server: out.Admin.Host, InsecureSkipTLSVerify: true}
	config.AuthInfos["admin"] = &api.AuthInfo{Token: token}
	config.Contexts["test"] = &api.Context{Cluster: "test", AuthInfo: "admin"}
	config.CurrentContext = "test"
	if err := clientcmd.WriteToFile(*config, out.Kubeconfig); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(out.Admin)
	if err != nil {
		t.Fatal(err)
	}
	s.await(func(ctx context.Context) error {
		_, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	s.start("kube-controller-manager", "--kubeconfig", out.Kubeconfig, "--controllers", "garbage-collector-controller", "--leader-elect=false", "--secure-port", "0")
	return out
}

type server struct {
	t        *testing.T
	bin, dir string
}

func (s *server) path(name string) string { return filepath.Join(s.dir, name) }

func (s *server) write(name, content string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(content), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// port reserves nothing: somebody else may take it until the program does.
func (s *server) port() string {
	s.t.Helper()
	var lc net.ListenConfig
	l, err := lc.Listen(s.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// start starts a program, which ends with the test, or with this process.
func (s *server) start(program string, args ...string) {
	s.t.Helper()
	log, err := os.Create(s.path(program + ".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(s.t.Context()), filepath.Join(s.bin, program), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	err = errors.Join(cmd.Start(), log.Close())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill() // nothing of it is kept
		_ = cmd.Wait()
		if s.t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				s.t.Logf("--- %s\n%s", log.Name(), b[max(0, len(b)-3000):])
			}
		}
	})
}

func (s *server) await(ready func(context.Context) error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), startTime)
	defer cancel()
	for {
		err := ready(ctx)
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatalf("not ready within %s: %v", startTime, err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func key(t *testing.T) string {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}))
}

// As is a client with the rights of a service account, which may be none.
func (s *Server) As(t *testing.T, namespace, account string) kubernetes.Interface {
	t.Helper()
	config := rest.CopyConfig(s.Admin)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: fmt.Sprintf("system:serviceaccount:%s:%s", namespace, account),
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + namespace, "system:authenticated"},
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}
