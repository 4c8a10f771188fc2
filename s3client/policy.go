package s3client

import (
	"encoding/json"

	"github.com/holdfast-csi/holdfast/storage"
)

// policyName is the name of a tenant's inline policy. There is one, so that
// putting it again replaces what the tenant may do.
const policyName = "holdfast"

// What a tenant may do to objects, and to its bucket. ListMultipartUploads and
// the like are missing as SeaweedFS 4.48 refuses documents that name them;
// listing the parts of an own upload works with PutObject.
var (
	objectActions = []string{"s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}
	bucketActions = []string{"s3:ListBucket", "s3:GetBucketLocation"}
)

type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect   string
	Action   []string
	Resource []string
}

// tenantPolicy returns the document that allows the use of b's objects and
// nothing else. A bucket name has no character that JSON or an ARN pattern
// treats specially; Grant checks it.
func tenantPolicy(b storage.BucketName) (string, error) {
	doc, err := json.Marshal(policy{
		Version: "2012-10-17",
		Statement: []statement{
			{Effect: "Allow", Action: objectActions, Resource: []string{"arn:aws:s3:::" + string(b) + "/*"}},
			{Effect: "Allow", Action: bucketActions, Resource: []string{"arn:aws:s3:::" + string(b)}},
		},
	})
	if err != nil {
		return "", storage.Errorf(storage.Other, "policy of bucket %s: %w", b, err)
	}
	return string(doc), nil
}
