// Package api finds the API server.
//
// Owns: where it is and how long one call may take. Never: a call. Locks: none.
package api

import (
	"fmt"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Client speaks to the API server.
type Client = kubernetes.Interface

// callTimeout bounds one call.
const callTimeout = 20 * time.Second

// Config says where the API server is, as Connect does. It bounds no call: a watch goes on.
func Config(kubeconfig, agent string) (*rest.Config, error) {
	find := rest.InClusterConfig
	if kubeconfig != "" {
		find = func() (*rest.Config, error) { return clientcmd.BuildConfigFromFlags("", kubeconfig) }
	}
	config, err := find()
	if err != nil {
		return nil, fmt.Errorf("how to reach the API server: %w", err)
	}
	config.UserAgent = agent
	return config, nil
}

// Connect gives a client of the API server: of the one of the pod that this runs in, or,
// where kubeconfig names a file, of that file's. agent is what the server's log calls us.
// It asks nothing.
func Connect(kubeconfig, agent string) (Client, error) {
	config, err := Config(kubeconfig, agent)
	if err != nil {
		return nil, err
	}
	config.Timeout = callTimeout
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("API server: %w", err)
	}
	return client, nil
}
