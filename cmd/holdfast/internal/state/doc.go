// Package state is the folder that one installation of Holdfast lives in.
//
// Owns: where the folder is, what lies in it, who may read what, its port base
// and admin keys, and its removal.
//
// Never: a process, a mount. It asks the kernel whether something is mounted
// below, and touches nothing then.
//
// Flow: Find gives the Dir, Prepare makes it, Lock says who works with it,
// Remove takes it away by known names.
//
//	config.json   what was chosen once: the port base, whether S3 speaks TLS
//	admin.json    the administrator's S3 keys (0600)
//	cluster/      the data of SeaweedFS
//	pki/          the certificates of the cluster and of those who speak to it
//	mounts/       one record per volume that `holdfast volume mount` mounted
//	staging/      mount points of staged volumes
//	mounter/      the mounter's own folder
//	run/          sockets, locks, pid files, what is running now
//	logs/         one rotated file per process
//	bin/          copies of the binaries, where the services cannot reach the originals
package state
