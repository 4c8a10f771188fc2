package s3client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file waits for what the gateway has to hear of: users are changed where it
// keeps them (storage/seaweed), and it follows. A volume must not be ready before its
// keys open it, and must not be emptied while its keys do.
//
// The gateway is asked by a request that is signed with the key's name and no secret
// of it: an unknown key is refused as such before the signature is looked at. It reads
// all users and policies at once, so who knows a key knows its policy.

const (
	// settleTime is far longer than it takes: milliseconds, and with a thousand users
	// tenths of a second.
	settleTime = 30 * time.Second
	// Pauses between two looks double from the first to the second.
	firstLook, maxLook = 5 * time.Millisecond, 100 * time.Millisecond
)

// settled is a coat around storage.Access.
type settled struct {
	of storage.Access
	c  *Client
}

var _ storage.Access = settled{}

// Settled gives an Access whose changes are in force at this endpoint when they return.
// Each may fail as Unavailable with the change made: repeating it is fine.
func (c *Client) Settled(of storage.Access) storage.Access { return settled{of, c} }

// Grant implements storage.Access. The old keys went in the same write, so that the
// gateway forgets them as it learns the new one.
func (s settled) Grant(ctx context.Context, user string, b storage.BucketName, prefix storage.Path) (storage.Keys, error) {
	keys, err := s.of.Grant(ctx, user, b, prefix)
	if err == nil {
		err = s.there(ctx, user, keys)
	}
	if err != nil {
		return storage.Keys{}, err
	}
	return keys, nil
}

// AddKeys implements storage.Access.
func (s settled) AddKeys(ctx context.Context, user string) (storage.Keys, error) {
	keys, err := s.of.AddKeys(ctx, user)
	if err == nil {
		err = s.there(ctx, user, keys)
	}
	if err != nil {
		return storage.Keys{}, err
	}
	return keys, nil
}

// ListKeys implements storage.Access.
func (s settled) ListKeys(ctx context.Context, user string) ([]string, error) {
	return s.of.ListKeys(ctx, user)
}

// EndKeys implements storage.Access.
func (s settled) EndKeys(ctx context.Context, user string, access []string) error {
	if err := s.of.EndKeys(ctx, user, access); err != nil {
		return err
	}
	return s.gone(ctx, access)
}

// Check implements storage.Access.
func (s settled) Check(ctx context.Context, user string, b storage.BucketName, prefix storage.Path) (string, error) {
	return s.of.Check(ctx, user, b, prefix)
}

// Restore implements storage.Access. A key that is made and ended after it tells when
// the gateway has heard: it hears of changes in their order.
func (s settled) Restore(ctx context.Context, user string, b storage.BucketName, prefix storage.Path) error {
	if err := s.of.Restore(ctx, user, b, prefix); err != nil {
		return err
	}
	mark, err := s.AddKeys(ctx, user)
	if err != nil {
		return err
	}
	return s.EndKeys(ctx, user, []string{mark.Access})
}

// Revoke implements storage.Access.
func (s settled) Revoke(ctx context.Context, user string) error {
	access, err := s.of.ListKeys(ctx, user)
	if err != nil && !storage.Is(err, storage.Corrupt) { // the gateway cannot read it either
		return err
	}
	if err := s.of.Revoke(ctx, user); err != nil {
		return err
	}
	return s.gone(ctx, access)
}

// there waits for a key of a user. Somebody else may end it meanwhile.
func (s settled) there(ctx context.Context, user string, keys storage.Keys) error {
	return s.c.await(ctx, keys.Access, true, func() error {
		have, err := s.of.ListKeys(ctx, user)
		if err == nil && !slices.Contains(have, keys.Access) {
			err = storage.Errorf(storage.Busy, "user %s: another change of its keys was faster; try again", user)
		}
		return err
	})
}

func (s settled) gone(ctx context.Context, access []string) error {
	for _, key := range access {
		if err := s.c.await(ctx, key, false, func() error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// await returns when the gateway knows the key, or does not know it any more, or when
// still, which is asked now and then, says that this will not come.
func (c *Client) await(ctx context.Context, access string, want bool, still func() error) error {
	bounded, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for pause := firstLook; ; pause = min(2*pause, maxLook) {
		known, err := c.knows(bounded, access)
		if err == nil && known == want {
			return nil
		}
		if err == nil && pause == maxLook {
			err = still()
		}
		if err == nil {
			look := time.NewTimer(pause)
			select {
			case <-look.C:
				continue
			case <-bounded.Done():
				look.Stop()
			}
		}
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("wait for the S3 gateway: %w", ctx.Err())
		case bounded.Err() == nil:
			return err
		case want:
			return storage.Errorf(storage.Unavailable, "the S3 gateway does not take the key …%s within %v: does it keep its users in this cluster's filer (%s)?", tail(access), settleTime, c.endpoint)
		}
		return storage.Errorf(storage.Unavailable, "the S3 gateway still takes the key …%s, which was ended %v ago (%s)", tail(access), settleTime, c.endpoint)
	}
}

// knows reports whether the gateway has that access key.
func (c *Client) knows(ctx context.Context, access string) (known bool, err error) {
	signer := credentials.NewStaticCredentialsProvider(access, "not its secret", "")
	err = c.do(ctx, "look up access key", "…"+tail(access), func(ctx context.Context) error {
		_, err := c.s3.ListBuckets(ctx, &s3.ListBucketsInput{}, func(o *s3.Options) { o.Credentials = aws.NewCredentialsCache(signer) })
		known = true // err is nil where nothing is checked
		var api smithy.APIError
		if !errors.As(err, &api) {
			return err
		}
		switch api.ErrorCode() {
		case "InvalidAccessKeyId":
			known, err = false, nil
		case "SignatureDoesNotMatch":
			err = nil
		}
		return err
	})
	return known, err
}

// tail of an access key is enough to find it, and not to use it.
func tail(access string) string { return access[max(0, len(access)-4):] }
