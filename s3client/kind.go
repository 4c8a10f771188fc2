package s3client

import (
	"crypto/tls"
	"errors"
	"net"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/holdfast-csi/holdfast/storage"
)

// This file is the one place where S3's words become ours. A code that
// is not in the table is judged by the HTTP status, which is all that an answer
// to HEAD has.

var codeKinds = map[string]storage.Kind{
	"NoSuchBucket": storage.NotFound,
	"NoSuchKey":    storage.NotFound,
	"NoSuchUpload": storage.NotFound,
	"NotFound":     storage.NotFound,

	"BucketAlreadyExists":     storage.Exists,
	"BucketAlreadyOwnedByYou": storage.Exists,

	"AccessDenied":          storage.Denied,
	"AllAccessDisabled":     storage.Denied,
	"ExpiredToken":          storage.Denied,
	"InvalidAccessKeyId":    storage.Denied,
	"RequestTimeTooSkewed":  storage.Denied,
	"SignatureDoesNotMatch": storage.Denied,

	"InvalidArgument":       storage.Invalid,
	"InvalidBucketName":     storage.Invalid,
	"InvalidParameterValue": storage.Invalid,
	"InvalidRequest":        storage.Invalid,
	"MalformedXML":          storage.Invalid,
	"InvalidRange":          storage.OutOfRange,
	"KeyTooLongError":       storage.TooLong,

	"BucketNotEmpty":             storage.NotEmpty,
	"OperationAborted":           storage.Busy,
	"ConditionalRequestConflict": storage.Changed,
	"PreconditionFailed":         storage.Changed,

	"QuotaExceeded":  storage.Full,
	"TooManyBuckets": storage.Full,

	"BadDigest": storage.Corrupt,

	"MethodNotAllowed": storage.Unsupported,
	"NotImplemented":   storage.Unsupported,

	// SeaweedFS answers InternalError while its filer is away.
	"InternalError":        storage.Unavailable,
	"InternalFailure":      storage.Unavailable,
	"RequestLimitExceeded": storage.Unavailable,
	"RequestTimeout":       storage.Unavailable,
	"ServiceFailure":       storage.Unavailable,
	"ServiceUnavailable":   storage.Unavailable,
	"SlowDown":             storage.Unavailable,
	"Throttling":           storage.Unavailable,
	"ThrottlingException":  storage.Unavailable,
	"TooManyRequests":      storage.Unavailable,
}

var statusKinds = map[int]storage.Kind{
	400: storage.Invalid,
	401: storage.Denied,
	403: storage.Denied,
	404: storage.NotFound,
	405: storage.Unsupported,
	408: storage.Unavailable,
	409: storage.Busy,
	412: storage.Changed,
	416: storage.OutOfRange,
	429: storage.Unavailable,
	500: storage.Unavailable,
	501: storage.Unsupported,
	502: storage.Unavailable,
	503: storage.Unavailable,
	504: storage.Unavailable,
}

// classify turns an error of the SDK into one of ours. It is called with the
// error of one attempt: a deadline in it is the attempt's own, so it counts as
// Unavailable and is not wrapped, lest it be taken for the caller's.
func classify(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*storage.Error](err); ok {
		return err
	}
	status := 0
	var answer *smithyhttp.ResponseError
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.Response != nil {
		status = answer.HTTPStatusCode()
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		kind, ok := codeKinds[api.ErrorCode()]
		if !ok {
			kind = statusKinds[status]
		}
		return storage.Errorf(kind, "%s: %s (HTTP %d)", api.ErrorCode(), api.ErrorMessage(), status)
	}
	if status != 0 {
		return storage.Errorf(statusKinds[status], "HTTP %d: %v", status, err)
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return storage.Errorf(storage.Denied, "the server's certificate is not trusted: %w", cert)
	}
	var send *smithyhttp.RequestSendError
	var wire net.Error
	if errors.As(err, &send) || errors.As(err, &wire) || storage.IsContext(err) {
		return storage.Errorf(storage.Unavailable, "%v", err)
	}
	return storage.Errorf(storage.Other, "%w", err)
}
