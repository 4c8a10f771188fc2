package keeper

import (
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file holds what is said over the sockets.

// NodeSocket and MounterSocket return the paths of the two sockets in a run
// folder.
func NodeSocket(runDir string) string    { return filepath.Join(runDir, nodeSocket) }
func MounterSocket(runDir string) string { return filepath.Join(runDir, mounterSocket) }

const (
	nodeSocket    = "keeper-node.sock"
	mounterSocket = "keeper-mounter.sock"

	// maxConfig leaves room in a message for the rest of a grant.
	maxConfig = 32 << 10
	// maxID: with the tag and a name it must fit into a mount's source, for which
	// the kernel takes 255 bytes.
	maxID = 128
)

// The operations: of the node, of the mounter, of the keeper towards the mounter.
const (
	opMount    = "mount"
	opBind     = "bind"
	opUnmount  = "unmount"
	opSettle   = "settle"
	opSessions = "sessions"
	opReap     = "reap"
	opShutdown = "shutdown"
	opHealth   = "health"

	opHello = "hello"
	opOffer = "offer"
	opReady = "ready"
	opEnded = "ended"

	opGrant  = "grant"
	opEnd    = "end"
	opReport = "report"
)

// MountRequest asks for a session at a directory.
type MountRequest struct {
	// ID names the session; one ID is mounted at one target.
	ID string `json:"id"`
	// Target is an existing directory, absolute and without symbolic links below
	// the allowed root.
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// Context is the SELinux context that all files are shown with; empty for the
	// kernel's own choice.
	Context string `json:"context,omitempty"`
	// FSName stands in df's first column behind the session's identity; it may be
	// empty, and the id is not said twice.
	FSName string `json:"fsName,omitempty"`
	// Config is handed to the mounter as it is: at most 32 KiB.
	Config json.RawMessage `json:"config,omitempty"`
}

// Validate says what is wrong with the request.
func (r MountRequest) Validate() error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	if len(r.Config) > maxConfig {
		return storage.Errorf(storage.Invalid, "config of %d bytes: at most %d are allowed", len(r.Config), maxConfig)
	}
	if len(r.Config) > 0 && !json.Valid(r.Config) {
		return storage.Errorf(storage.Invalid, "config: must be JSON")
	}
	if len(r.Context) > maxSource || strings.ContainsRune(r.Context, 0) {
		return storage.Errorf(storage.Invalid, "SELinux context of %d bytes: at most %d and no zero byte are allowed", len(r.Context), maxSource)
	}
	return checkPath(r.Target)
}

// BindOptions are those of one bind. Set-user-id bits and devices have no effect on
// any mount of the keeper.
type BindOptions struct {
	ReadOnly bool `json:"readOnly,omitempty"`
	NoExec   bool `json:"noExec,omitempty"`
}

// BindRequest asks for a session's mount at one more directory. A bind of a
// read-only session is read-only, whatever is asked.
type BindRequest struct {
	ID     string `json:"id"`
	Target string `json:"target"`
	BindOptions
}

// Validate says what is wrong with the request.
func (r BindRequest) Validate() error {
	if err := checkID(r.ID); err != nil {
		return err
	}
	return checkPath(r.Target)
}

// SessionInfo is what the keeper knows of a session.
type SessionInfo struct {
	ID     string   `json:"id"`
	Target string   `json:"target"`
	Binds  []string `json:"binds,omitempty"`
	// BindOptions are those of Binds, in the same order.
	BindOptions []BindOptions   `json:"bindOptions,omitempty"`
	ReadOnly    bool            `json:"readOnly,omitempty"`
	Config      json.RawMessage `json:"config,omitempty"`
	// Serving: a mounter answers its requests now.
	Serving bool `json:"serving,omitempty"`
	// Dead: nobody ever will again (ENOTCONN). Unmount or Reap takes it away.
	Dead bool `json:"dead,omitempty"`
}

// Health is how a session is.
type Health struct {
	// Serving and Dead as in SessionInfo.
	Serving bool `json:"serving,omitempty"`
	Dead    bool `json:"dead,omitempty"`
	// Silent says why the mounter that serves it does not answer the keeper.
	Silent string `json:"silent,omitempty"`
	// Waiting are the requests that the kernel has no answer to, -1 when the kernel
	// does not tell.
	Waiting int `json:"waiting"`
	// Report is the mounter's own, nil when it gave none.
	Report json.RawMessage `json:"report,omitempty"`
}

type targetRequest struct {
	Target string `json:"target"`
}

type idRequest struct {
	ID string `json:"id"`
}

// endRequest has what is needed to end a session that this mounter has never served:
// its predecessor died with it.
type endRequest struct {
	ID       string          `json:"id"`
	Serial   string          `json:"serial"`
	ReadOnly bool            `json:"readOnly,omitempty"`
	Config   json.RawMessage `json:"config,omitempty"`
}

type sessionsRequest struct {
	After string `json:"after,omitempty"`
}

type sessionsAnswer struct {
	Sessions []SessionInfo `json:"sessions"`
	More     bool          `json:"more,omitempty"`
}

type reapAnswer struct {
	Detached []string `json:"detached,omitempty"`
}

// helloMessage is how a mounter presents itself.
type helloMessage struct {
	// Slots: it reads requests into the slots that it is granted.
	Slots bool `json:"slots,omitempty"`
}

// sessionMessage is a session on its way, as a grant or as an offer. The
// descriptors are /dev/fuse and the memfd of its slots.
type sessionMessage struct {
	ID string `json:"id"`
	// Serial tells two sessions of the same id apart.
	Serial    string          `json:"serial"`
	Target    string          `json:"target"`
	ReadOnly  bool            `json:"readOnly,omitempty"`
	Config    json.RawMessage `json:"config,omitempty"`
	Init      []byte          `json:"init"`
	InitReply []byte          `json:"initReply,omitempty"`
	// Resend: requests may have been read that the slots do not hold.
	Resend bool `json:"resend,omitempty"`
}

func (m *sessionMessage) ending() Ending {
	return Ending{ID: m.ID, Serial: m.Serial, ReadOnly: m.ReadOnly, Config: m.Config}
}

type grantAnswer struct {
	InitReply []byte `json:"initReply"`
	// Refused: the slots cannot be used, and nothing is served.
	Refused bool `json:"refused,omitempty"`
}

func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return storage.Errorf(storage.Invalid, "session id of %d bytes: 1 to %d are allowed", len(id), maxID)
	}
	for _, c := range []byte(id) {
		if c <= ' ' || c > '~' {
			return storage.Errorf(storage.Invalid, "session id %q: printable ASCII without spaces is allowed", id)
		}
	}
	return nil
}

func checkPath(path string) error {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || len(path) >= 4096 {
		return storage.Errorf(storage.Invalid, "path %q: must be absolute and clean, and not the root", path)
	}
	return nil
}
