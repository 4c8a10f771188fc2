package s3client

import (
	"context"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/holdfast-csi/holdfast/storage"
)

// revokeRounds bounds the race with a user that makes keys while they are being
// deleted.
const revokeRounds = 3

// Revoke implements storage.Access. Keys go first: what is left when a later
// step fails can do nothing. The user goes last, so that a repeated call finds
// what remains.
func (c *Client) Revoke(ctx context.Context, user string) error {
	if err := checkUser(user); err != nil {
		return err
	}
	for round := 1; ; round++ {
		err := c.revokeOnce(ctx, user)
		if storage.Is(err, storage.NotFound) {
			return nil
		}
		if !storage.Is(err, storage.InUse) || round >= revokeRounds {
			return err
		}
	}
}

// revokeOnce returns NotFound when the user is gone, or was before.
func (c *Client) revokeOnce(ctx context.Context, user string) error {
	keys, err := c.listKeys(ctx, user)
	if err != nil {
		return err
	}
	if err := c.deleteKeys(ctx, user, keys); err != nil {
		return err
	}
	if err := c.deletePolicies(ctx, user); err != nil {
		return err
	}
	return c.change(ctx, "delete user", user, func(ctx context.Context) error {
		_, err := c.iam.DeleteUser(ctx, &iam.DeleteUserInput{UserName: aws.String(user)})
		return err
	})
}

// deletePolicies removes the inline policies and detaches the managed ones.
func (c *Client) deletePolicies(ctx context.Context, user string) error {
	var inline, attached []string
	err := c.do(ctx, "list policies of user", user, func(ctx context.Context) error {
		inline = inline[:0]
		pages := iam.NewListUserPoliciesPaginator(c.iam, &iam.ListUserPoliciesInput{UserName: aws.String(user)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			inline = append(inline, page.PolicyNames...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = c.do(ctx, "list attached policies of user", user, func(ctx context.Context) error {
		attached = attached[:0]
		pages := iam.NewListAttachedUserPoliciesPaginator(c.iam, &iam.ListAttachedUserPoliciesInput{UserName: aws.String(user)})
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return err
			}
			for _, p := range page.AttachedPolicies {
				attached = append(attached, aws.ToString(p.PolicyArn))
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range inline {
		err := c.change(ctx, "delete policy of user", user, func(ctx context.Context) error {
			_, err := c.iam.DeleteUserPolicy(ctx, &iam.DeleteUserPolicyInput{UserName: aws.String(user), PolicyName: aws.String(name)})
			return err
		})
		if err != nil && !storage.Is(err, storage.NotFound) {
			return err
		}
	}
	for _, arn := range attached {
		err := c.change(ctx, "detach policy of user", user, func(ctx context.Context) error {
			_, err := c.iam.DetachUserPolicy(ctx, &iam.DetachUserPolicyInput{UserName: aws.String(user), PolicyArn: aws.String(arn)})
			return err
		})
		if err != nil && !storage.Is(err, storage.NotFound) {
			return err
		}
	}
	return nil
}
