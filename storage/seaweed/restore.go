package seaweed

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file finds out whether somebody has changed a user, and undoes it.

// Check implements storage.Access.
func (c *Client) Check(ctx context.Context, name string, b storage.BucketName, prefix storage.Path) (string, error) {
	doc, err := grantedPolicy(name, b, prefix)
	if err != nil {
		return "", err
	}
	e, err := c.entry(ctx, policiesDir, name+userSuffix)
	switch {
	case storage.Is(err, storage.NotFound):
		return "the policy of user " + name + " is gone", nil
	case err != nil:
		return "", fmt.Errorf("policy of user %s: %w", name, err)
	case !sameJSON(e.Inline, doc):
		return "the policy of user " + name + " was changed", nil
	}
	e, err = c.entry(ctx, usersDir, name+userSuffix)
	if storage.Is(err, storage.NotFound) {
		return "the user " + name + " is gone", nil
	}
	if err != nil {
		return "", fmt.Errorf("user %s: %w", name, err)
	}
	u, _, err := parseUser(name, e.Inline)
	if err != nil {
		return "the file of user " + name + " is damaged", nil //nolint:nilerr // that is what was asked
	}
	var policies, actions []string
	var disabled bool
	for field, to := range map[string]any{userPolicies: &policies, userActions: &actions, userDisabled: &disabled} {
		if u[field] == nil {
			continue
		}
		if err := json.Unmarshal(u[field], to); err != nil {
			return "the user " + name + " was changed: its " + field, nil //nolint:nilerr // as above
		}
	}
	switch {
	case disabled:
		return "the user " + name + " was disabled", nil
	case !slices.Equal(policies, []string{name}) || len(actions) > 0:
		return "the user " + name + " has other policies than its own", nil
	}
	return "", nil
}

// Restore implements storage.Access. A user that is gone, or that nobody can read, is
// made without keys.
func (c *Client) Restore(ctx context.Context, name string, b storage.BucketName, prefix storage.Path) error {
	doc, err := grantedPolicy(name, b, prefix)
	if err != nil {
		return err
	}
	err = c.changeFile(ctx, policiesDir, name, func([]byte) ([]byte, error) { return doc, nil })
	if err != nil {
		return fmt.Errorf("policy of user %s: %w", name, err)
	}
	err = c.changeFile(ctx, usersDir, name, func(body []byte) ([]byte, error) {
		u, have, err := parseUser(name, body)
		if err != nil { // there is none, or none that the gateway can read
			u, have = user{}, nil
		}
		return granted(u, name, have)
	})
	if err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	return nil
}

// sameJSON compares what two documents say, however they are written.
func sameJSON(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
