package issuer

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
)

// Connection is the API server, as an issuer needs it.
type Connection struct {
	namespace string
	client    kubernetes.Interface
	events    record.EventBroadcaster
	recorder  record.EventRecorder
}

// Connected is the API server that client speaks to, for the Secrets of one namespace.
// Close ends what it starts.
func Connected(client kubernetes.Interface, namespace string) *Connection {
	c := &Connection{namespace: namespace, client: client, events: record.NewBroadcaster()}
	c.events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	c.recorder = c.events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: managedBy})
	return c
}

// Close ends what sends events.
func (c *Connection) Close() { c.events.Shutdown() }

// Secrets of the namespace.
func (c *Connection) Secrets() Secrets { return c.client.CoreV1().Secrets(c.namespace) }

// Warn implements Deps.Warn.
func (c *Connection) Warn(s *corev1.Secret, reason, message string) {
	c.recorder.Event(s, corev1.EventTypeWarning, reason, message)
}

// Deployment returns what makes a Deployment of the namespace an owner; nil where there
// is none of that name.
func (c *Connection) Deployment(ctx context.Context, name string) (*metav1.OwnerReference, error) {
	d, err := c.client.AppsV1().Deployments(c.namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Deployment %s: %w", name, err)
	}
	return &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "Deployment", Name: d.Name, UID: d.UID}, nil
}
