package seaweed

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes and ends the users of the S3 gateway. They are entries in the
// filer, one for each user and one for its policy, in the form of SeaweedFS's
// credential store filer_etc. The gateway follows these folders and reads all users
// anew with each change.
//
// The AWS IAM API of the gateway lost. Most of its calls write every user there is,
// and each of these writes makes the gateway read all users: what a volume costs grew
// with the square of the number of volumes. A user that was made or ended here while
// such a call ran would be taken away or come back, so the gateway is started with
// -iam.readOnly, and tenants cannot make keys for themselves. The filer's IAM service
// lost too: it asks for a token that only the cluster's own processes have.
//
// An entry here may be newer than what the gateway knows: s3client.Settled waits.

const (
	usersDir    = "/etc/iam/identities"
	policiesDir = "/etc/iam/policies"
	// userSuffix of the entries in both.
	userSuffix = ".json"
	// changeTries bounds how often a change of a user is begun again since somebody
	// else was faster. Two controllers may meet; more than this is a defect.
	changeTries = 10
)

// userPattern is IAM's own rule for user names.
var userPattern = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)

var _ storage.Access = (*Client)(nil)

// credential is one key pair of a user, as the gateway reads it.
type credential struct {
	Access string `json:"access_key"`
	Secret string `json:"secret_key"`
	Status string `json:"status"`
}

// user is the gateway's form of one, field by field: what we do not know stays.
type user map[string]json.RawMessage

// The fields of a user that are ours, and those that would let it do more or less.
const (
	userName     = "name"
	userKeys     = "credentials"
	userPolicies = "policy_names"
	userActions  = "actions"
	userDisabled = "disabled"
)

// Grant implements storage.Access. The policy stands before the key: keys without it
// would be refused for a moment, and keys with an older one would reach another
// bucket. The new key takes the place of the old ones in one write.
func (c *Client) Grant(ctx context.Context, name string, b storage.BucketName, prefix storage.Path) (storage.Keys, error) {
	doc, err := grantedPolicy(name, b, prefix)
	if err != nil {
		return storage.Keys{}, err
	}
	err = c.dropInline(ctx, name)
	if err == nil {
		err = c.changeFile(ctx, policiesDir, name, func([]byte) ([]byte, error) { return doc, nil })
	}
	if err != nil {
		return storage.Keys{}, fmt.Errorf("policy of user %s: %w", name, err)
	}
	keys := newKeys()
	err = c.changeFile(ctx, usersDir, name, func([]byte) ([]byte, error) { return granted(user{}, name, b, prefix, []credential{active(keys)}) })
	if err != nil {
		return storage.Keys{}, fmt.Errorf("user %s: %w", name, err)
	}
	return keys, nil
}

// granted is u as Grant makes it, with those keys.
func granted(u user, name string, b storage.BucketName, prefix storage.Path, keys []credential) ([]byte, error) {
	delete(u, userDisabled)
	err := u.set(userName, name)
	if err == nil {
		err = u.set(userPolicies, []string{name})
	}
	if err == nil {
		err = u.set(userActions, formActions(b, prefix))
	}
	if err == nil {
		err = u.set(userKeys, keys)
	}
	if err != nil {
		return nil, err
	}
	return json.Marshal(u)
}

// grantedPolicy is the policy that Grant gives, if such a grant is possible.
func grantedPolicy(name string, b storage.BucketName, prefix storage.Path) ([]byte, error) {
	if err := checkUser(name); err != nil {
		return nil, err
	}
	if err := b.Check(); err != nil {
		return nil, err
	}
	if err := prefix.CheckFolder(); err != nil {
		return nil, err
	}
	return tenantPolicy(b, prefix)
}

// AddKeys implements storage.Access.
func (c *Client) AddKeys(ctx context.Context, name string) (storage.Keys, error) {
	keys := newKeys()
	err := c.changeKeys(ctx, name, func(have []credential) []credential {
		return append(withoutKeys(have, []string{keys.Access}), active(keys)) // once, however often it is sent
	})
	if err != nil {
		return storage.Keys{}, err
	}
	return keys, nil
}

// ListKeys implements storage.Access.
func (c *Client) ListKeys(ctx context.Context, name string) ([]string, error) {
	if err := checkUser(name); err != nil {
		return nil, err
	}
	e, err := c.entry(ctx, usersDir, name+userSuffix)
	if storage.Is(err, storage.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("user %s: %w", name, err)
	}
	_, have, err := parseUser(name, e.Inline)
	if err != nil {
		return nil, err
	}
	var access []string
	for _, k := range have {
		access = append(access, k.Access)
	}
	return access, nil
}

// EndKeys implements storage.Access.
func (c *Client) EndKeys(ctx context.Context, name string, access []string) error {
	err := c.changeKeys(ctx, name, func(have []credential) []credential { return withoutKeys(have, access) })
	if storage.Is(err, storage.NotFound) {
		return nil
	}
	return err
}

// Revoke implements storage.Access. The keys go with the user, and first: what is left
// when the second step fails opens nothing, and a repeated call finds it.
func (c *Client) Revoke(ctx context.Context, name string) error {
	if err := checkUser(name); err != nil {
		return err
	}
	if err := c.dropInline(ctx, name); err != nil {
		return fmt.Errorf("revoke user %s: %w", name, err)
	}
	for _, dir := range []string{usersDir, policiesDir} {
		if err := c.remove(ctx, dir, name+userSuffix, true); err != nil {
			return fmt.Errorf("revoke user %s: %w", name, err)
		}
	}
	return nil
}

// changeKeys replaces the keys of a user that is there: NotFound otherwise.
func (c *Client) changeKeys(ctx context.Context, name string, change func([]credential) []credential) error {
	if err := checkUser(name); err != nil {
		return err
	}
	err := c.changeFile(ctx, usersDir, name, func(body []byte) ([]byte, error) {
		if body == nil {
			return nil, storage.Errorf(storage.NotFound, "not found")
		}
		u, have, err := parseUser(name, body)
		if err != nil {
			return nil, err
		}
		if err := u.set(userKeys, change(have)); err != nil {
			return nil, err
		}
		return json.Marshal(u)
	})
	if err != nil {
		return fmt.Errorf("keys of user %s: %w", name, err)
	}
	return nil
}

// changeFile lets change write the file of a user anew, from what it holds (nil when
// there is none), provided that nobody else was faster; otherwise it begins again.
func (c *Client) changeFile(ctx context.Context, dir, name string, change func([]byte) ([]byte, error)) error {
	for try := 1; ; try++ {
		e, err := c.entry(ctx, dir, name+userSuffix)
		missing := storage.Is(err, storage.NotFound)
		if err != nil && !missing {
			return err
		}
		was := e.Inline
		if missing {
			was = nil
		} else if was == nil {
			was = []byte{}
		}
		body, err := change(was)
		if err != nil {
			return err
		}
		now := time.Now()
		if missing {
			_, err = c.create(ctx, dir, toWire(storage.Entry{
				Name: name + userSuffix, Mode: 0o600, Size: int64(len(body)), Inline: body, Mtime: now, Btime: now, MIME: "application/json",
			}))
		} else {
			e.Inline, e.Size, e.Mtime, e.MD5 = body, int64(len(body)), now, nil
			_, err = c.update(ctx, dir, e)
		}
		if try < changeTries && (storage.Is(err, storage.Exists) || storage.Is(err, storage.Changed) || !missing && storage.Is(err, storage.NotFound)) {
			continue
		}
		return err
	}
}

// parseUser reads a user's file. Its error never quotes it: it holds secrets.
func parseUser(name string, body []byte) (user, []credential, error) {
	u, have := user{}, []credential(nil)
	if json.Unmarshal(body, &u) != nil || u == nil || u[userKeys] != nil && json.Unmarshal(u[userKeys], &have) != nil {
		return nil, nil, storage.Errorf(storage.Corrupt, "user %s: %s/%s%s in the filer is not what the S3 gateway keeps of a user", name, usersDir, name, userSuffix)
	}
	return u, have, nil
}

func (u user) set(field string, value any) error {
	b, err := json.Marshal(value)
	u[field] = b
	return err
}

// withoutKeys are the keys but those.
func withoutKeys(have []credential, access []string) []credential {
	return slices.DeleteFunc(have, func(k credential) bool { return slices.Contains(access, k.Access) })
}

func active(k storage.Keys) credential { return credential{k.Access, k.Secret, "Active"} }

// newKeys makes a key pair of the lengths that S3 clients know: 20 and 40 characters,
// of 90 and 200 random bits.
func newKeys() storage.Keys {
	return storage.Keys{Access: "HF" + rand.Text()[:18], Secret: (rand.Text() + rand.Text())[:40]}
}

func checkUser(name string) error {
	if !userPattern.MatchString(name) {
		return storage.Errorf(storage.Invalid, "user name %q: 1 to 64 letters, digits and _+=,.@- are allowed", name)
	}
	return nil
}
