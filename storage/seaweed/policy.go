package seaweed

import (
	"encoding/json"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is what limits a tenant to its bucket: a policy document, and for browsers'
// forms one of SeaweedFS's own actions.

// What a tenant may do to objects, and to its bucket. ListMultipartUploads and
// the like are missing as SeaweedFS 4.48 refuses documents that name them;
// listing the parts of an own upload works with PutObject.
const (
	actionList     = "s3:ListBucket"
	actionLocation = "s3:GetBucketLocation"
)

var objectActions = []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}

// formActions let forms put objects into a bucket: the gateway judges a form by such
// actions alone, and by the bucket (TestSignedLinks). All other requests are judged by
// the document as long as there is one; without it "Write:bucket" would also allow
// changes of versioning and lifecycle (TestKeysOfOneVolume). With a folder there is no
// way: the action would open the whole bucket.
func formActions(b storage.BucketName, prefix storage.Path) []string {
	if prefix != "" {
		return nil
	}
	return []string{"Write:" + string(b)}
}

type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect   string
	Action   []string
	Resource []string
	// Condition by operator, then by key.
	Condition map[string]map[string][]string `json:",omitempty"`
}

// tenantPolicy returns the document that allows the use of the objects of b below
// prefix and nothing else. Neither a bucket's name nor a folder's has a character
// that JSON or an ARN pattern treats specially; Grant checks them.
func tenantPolicy(b storage.BucketName, prefix storage.Path) ([]byte, error) {
	bucket := "arn:aws:s3:::" + string(b)
	statements := []statement{
		{Effect: "Allow", Action: objectActions, Resource: []string{bucket + "/*"}},
		{Effect: "Allow", Action: []string{actionList, actionLocation}, Resource: []string{bucket}},
	}
	if prefix != "" {
		statements = []statement{
			{Effect: "Allow", Action: objectActions, Resource: []string{bucket + "/" + string(prefix) + "/*"}},
			{Effect: "Allow", Action: []string{actionLocation}, Resource: []string{bucket}},
			{
				Effect: "Allow", Action: []string{actionList}, Resource: []string{bucket},
				Condition: map[string]map[string][]string{"StringLike": {"s3:prefix": {string(prefix) + "/*"}}},
			},
		}
	}
	doc, err := json.Marshal(policy{Version: "2012-10-17", Statement: statements})
	if err != nil {
		return nil, storage.Errorf(storage.Other, "policy of bucket %s: %w", b, err)
	}
	return doc, nil
}
