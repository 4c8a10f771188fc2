// Command holdfast starts and stops an installation of Holdfast on one machine,
// works with its volumes, and is the two CSI services themselves.
//
// Owns: flags, variables, signals, exit codes, and which part meets which.
//
// Never: a decision that a service would have to make as well. The volume
// commands speak CSI to the running driver, as Kubernetes does.
//
// Flow: main calls run, run executes one command of the tree in root.go.
// `up` starts the supervisor (internal/stack), which runs everything else.
package main
