package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// user may use one bucket, or a folder of it, by any of its keys.
type user struct {
	bucket storage.BucketName
	prefix storage.Path
	// secrets by access key.
	secrets map[string]string
}

var _ storage.Access = (*Store)(nil)

// Grant implements storage.Access.
func (s *Store) Grant(ctx context.Context, name string, b storage.BucketName, prefix storage.Path) (storage.Keys, error) {
	if err := ctx.Err(); err != nil {
		return storage.Keys{}, err
	}
	if name == "" {
		return storage.Keys{}, storage.Errorf(storage.Invalid, "user name is empty")
	}
	if err := prefix.CheckFolder(); err != nil {
		return storage.Keys{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control.users[name] = &user{bucket: b, prefix: prefix, secrets: map[string]string{}}
	return s.control.newKeys(name), nil
}

// Revoke implements storage.Access.
func (s *Store) Revoke(ctx context.Context, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.control.users, name)
	return nil
}

// Allowed reports whether the keys may read and write the whole bucket now.
func (s *Store) Allowed(k storage.Keys, b storage.BucketName) bool {
	return s.AllowedIn(k, b, "")
}

// AllowedIn reports whether the keys may read and write in a folder of the
// bucket now.
func (s *Store) AllowedIn(k storage.Keys, b storage.BucketName, folder storage.Path) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.control.owner(k)
	return u != nil && u.bucket == b && folder.Within(u.prefix)
}

// UserNames lists the users, for tests of what is left behind.
func (s *Store) UserNames() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.control.users))
}

func (c *control) newKeys(name string) storage.Keys {
	c.keys++
	k := storage.Keys{Access: fmt.Sprintf("ACCESS%d", c.keys), Secret: fmt.Sprintf("secret-%d", c.keys)}
	c.users[name].secrets[k.Access] = k.Secret
	return k
}

func (c *control) owner(k storage.Keys) *user {
	for _, u := range c.users {
		if secret, ok := u.secrets[k.Access]; ok && secret == k.Secret {
			return u
		}
	}
	return nil
}
