package s3client

import (
	"context"
	"regexp"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file makes and ends users over the AWS IAM API. A user of SeaweedFS may
// make keys for itself, so every step that ends keys lists them first.

// userPattern is IAM's own rule for user names.
var userPattern = regexp.MustCompile(`^[A-Za-z0-9_+=,.@-]{1,64}$`)

var _ storage.Access = (*Client)(nil)

// Grant implements storage.Access. The policy stands before the first key: keys
// without it would be refused for a moment, and keys with an older one would
// reach another bucket. Old keys end after the new one is made, so that a crash
// between leaves keys that work; the next Grant ends them.
func (c *Client) Grant(ctx context.Context, user string, b storage.BucketName, prefix storage.Path) (storage.Keys, error) {
	if err := checkUser(user); err != nil {
		return storage.Keys{}, err
	}
	if err := b.Check(); err != nil {
		return storage.Keys{}, err
	}
	if err := prefix.CheckFolder(); err != nil {
		return storage.Keys{}, err
	}
	doc, err := tenantPolicy(b, prefix)
	if err != nil {
		return storage.Keys{}, err
	}
	err = c.change(ctx, "create user", user, func(ctx context.Context) error {
		_, err := c.iam.CreateUser(ctx, &iam.CreateUserInput{UserName: aws.String(user)})
		return err
	})
	if err != nil && !storage.Is(err, storage.Exists) {
		return storage.Keys{}, err
	}
	old, err := c.listKeys(ctx, user)
	if err != nil {
		return storage.Keys{}, err
	}
	err = c.change(ctx, "put policy of user", user, func(ctx context.Context) error {
		_, err := c.iam.PutUserPolicy(ctx, &iam.PutUserPolicyInput{
			UserName: aws.String(user), PolicyName: aws.String(policyName), PolicyDocument: aws.String(doc),
		})
		return err
	})
	if err != nil {
		return storage.Keys{}, err
	}
	keys, err := c.createKey(ctx, user)
	if storage.Is(err, storage.Full) {
		// The user has as many keys as it may have: they have to go first.
		if err := c.deleteKeys(ctx, user, old); err != nil {
			return storage.Keys{}, err
		}
		keys, err = c.createKey(ctx, user)
	}
	if err != nil {
		return storage.Keys{}, err
	}
	// Listed again: an old key may have been used to make one more meanwhile.
	for range revokeRounds {
		old, err = c.listKeys(ctx, user)
		if err != nil {
			return storage.Keys{}, err
		}
		old = without(old, keys.Access)
		if len(old) == 0 {
			return keys, nil
		}
		if err := c.deleteKeys(ctx, user, old); err != nil {
			return storage.Keys{}, err
		}
	}
	return storage.Keys{}, storage.Errorf(storage.Busy, "grant for user %s: the user keeps making keys", user)
}

func (c *Client) createKey(ctx context.Context, user string) (storage.Keys, error) {
	var keys storage.Keys
	err := c.change(ctx, "create access key of user", user, func(ctx context.Context) error {
		out, err := c.iam.CreateAccessKey(ctx, &iam.CreateAccessKeyInput{UserName: aws.String(user)})
		if err != nil {
			return err
		}
		if out.AccessKey != nil {
			keys = storage.Keys{Access: aws.ToString(out.AccessKey.AccessKeyId), Secret: aws.ToString(out.AccessKey.SecretAccessKey)}
		}
		if keys.Access == "" || keys.Secret == "" {
			return storage.Errorf(storage.Corrupt, "the answer has no keys")
		}
		return nil
	})
	return keys, err
}

func (c *Client) listKeys(ctx context.Context, user string) ([]string, error) {
	var keys []string
	err := c.do(ctx, "list access keys of user", user, func(ctx context.Context) error {
		keys = keys[:0]
		pages := iam.NewListAccessKeysPaginator(c.iam, &iam.ListAccessKeysInput{UserName: aws.String(user)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, k := range page.AccessKeyMetadata {
				keys = append(keys, aws.ToString(k.AccessKeyId))
			}
		}
		return nil
	})
	return keys, err
}

func (c *Client) deleteKeys(ctx context.Context, user string, keys []string) error {
	for _, k := range keys {
		err := c.change(ctx, "delete access key of user", user, func(ctx context.Context) error {
			_, err := c.iam.DeleteAccessKey(ctx, &iam.DeleteAccessKeyInput{UserName: aws.String(user), AccessKeyId: aws.String(k)})
			return err
		})
		if err != nil && !storage.Is(err, storage.NotFound) {
			return err
		}
	}
	return nil
}

func checkUser(user string) error {
	if !userPattern.MatchString(user) {
		return storage.Errorf(storage.Invalid, "user name %q: 1 to 64 letters, digits and _+=,.@- are allowed", user)
	}
	return nil
}

func without(keys []string, keep string) []string {
	var rest []string
	for _, k := range keys {
		if k != keep {
			rest = append(rest, k)
		}
	}
	return rest
}
