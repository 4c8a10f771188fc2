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
	inline, err := c.inline(ctx)
	switch {
	case err != nil:
		return "", err
	case disabled:
		return "the user " + name + " was disabled", nil
	case inline[name] != nil:
		return "the user " + name + " has an inline policy beside its own", nil
	case !slices.Equal(policies, []string{name}) || !slices.Equal(actions, formActions(b, prefix)):
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
	err = c.dropInline(ctx, name)
	if err == nil {
		err = c.changeFile(ctx, policiesDir, name, func([]byte) ([]byte, error) { return doc, nil })
	}
	if err != nil {
		return fmt.Errorf("policy of user %s: %w", name, err)
	}
	err = c.changeFile(ctx, usersDir, name, func(body []byte) ([]byte, error) {
		u, have, err := parseUser(name, body)
		if err != nil { // there is none, or none that the gateway can read
			u, have = user{}, nil
		}
		return granted(u, name, b, prefix, have)
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

// Inline policies are those that the gateway's IAM API gives, all of them in one file.
// We give none, and one of an earlier life of a user's name would open what was its.
const (
	inlineDir  = "/etc/iam"
	inlineName = "policies"
	inlineOf   = "inlinePolicies"
)

// inline are the inline policies by user.
func (c *Client) inline(ctx context.Context) (map[string]json.RawMessage, error) {
	e, err := c.entry(ctx, inlineDir, inlineName+userSuffix)
	if storage.Is(err, storage.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inline policies: %w", err)
	}
	_, by, err := parseInline(e.Inline)
	return by, err
}

func parseInline(body []byte) (all, by map[string]json.RawMessage, err error) {
	if len(body) > 0 && json.Unmarshal(body, &all) != nil || all[inlineOf] != nil && json.Unmarshal(all[inlineOf], &by) != nil {
		return nil, nil, storage.Errorf(storage.Corrupt, "%s/%s%s in the filer is not what the S3 gateway keeps of policies", inlineDir, inlineName, userSuffix)
	}
	return all, by, nil
}

// dropInline removes those of a user. The gateway does not follow this file: it reads
// it again with the change of a user, which has to come after.
func (c *Client) dropInline(ctx context.Context, name string) error {
	by, err := c.inline(ctx)
	if err != nil || by[name] == nil {
		return err
	}
	return c.changeFile(ctx, inlineDir, inlineName, func(body []byte) ([]byte, error) {
		all, by, err := parseInline(body)
		if err != nil {
			return nil, err
		}
		if all == nil { // somebody has removed it
			all = map[string]json.RawMessage{}
		}
		delete(by, name)
		if all[inlineOf], err = json.Marshal(by); err != nil {
			return nil, err
		}
		return json.Marshal(all)
	})
}
