package storage

import (
	"context"
	"errors"
	"fmt"
)

// This file holds the one vocabulary of failure. An adapter turns what its wire
// says into a Kind once; a face turns the Kind into an errno or a gRPC code
// once, by a total table. Between them errors are only wrapped. Comparing text
// was the alternative: it breaks whenever somebody improves a message.

// Kind says what went wrong in terms that a caller can act on.
type Kind uint8

// The kinds. Kinds is the list of them; the tables of the faces are tested
// against it, so a new one cannot be forgotten.
const (
	// Other is an error that no adapter has classified: a defect or a surprise.
	Other Kind = iota
	// NotFound: the thing named does not exist.
	NotFound
	// Exists: the thing to be made is there already, and differs.
	Exists
	// Invalid: the caller's input can never work.
	Invalid
	// OutOfRange: a request for a size or a position outside the limits.
	OutOfRange
	// Denied: the caller may not do this.
	Denied
	// Busy: another operation on the same thing is under way; try again.
	Busy
	// InUse: the thing is mounted, leased or open; end that first.
	InUse
	// Full: no space, or the quota is reached.
	Full
	// Stale: the thing was replaced or removed by somebody else meanwhile.
	Stale
	// Changed: a condition on an update did not hold; read again and decide.
	Changed
	// Corrupt: stored bytes do not match their checksum or cannot be parsed.
	Corrupt
	// Unavailable: the other side cannot be reached now. The only retried kind.
	Unavailable
	// Unsupported: this implementation does not do that.
	Unsupported

	// The kernel's own words, for operations on names.

	NotDirectory
	IsDirectory
	NotEmpty
	NotPermitted
	ReadOnly
	NoData
	CrossDevice
	TooLong
	TooManyLinks
	Loop
)

// kindNames is total over the kinds.
var kindNames = map[Kind]string{
	Other:        "error",
	NotFound:     "not found",
	Exists:       "already exists",
	Invalid:      "invalid",
	OutOfRange:   "out of range",
	Denied:       "access denied",
	Busy:         "busy",
	InUse:        "in use",
	Full:         "no space left",
	Stale:        "stale",
	Changed:      "changed meanwhile",
	Corrupt:      "corrupt",
	Unavailable:  "unavailable",
	Unsupported:  "not supported",
	NotDirectory: "not a directory",
	IsDirectory:  "is a directory",
	NotEmpty:     "directory not empty",
	NotPermitted: "not permitted",
	ReadOnly:     "read-only",
	NoData:       "no such attribute",
	CrossDevice:  "crosses volumes",
	TooLong:      "name too long",
	TooManyLinks: "too many links",
	Loop:         "loop",
}

// Kinds returns every kind, for the tests of total tables.
func Kinds() []Kind {
	kinds := make([]Kind, 0, len(kindNames))
	for k := Other; int(k) < len(kindNames); k++ {
		kinds = append(kinds, k)
	}
	return kinds
}

// String returns the words used in messages, such as "not found".
func (k Kind) String() string {
	if s, ok := kindNames[k]; ok {
		return s
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is a classified failure. Its message is the message of Err when there
// is one, else the kind's words.
type Error struct {
	Kind Kind
	Err  error
}

// Error implements error.
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Kind.String()
	}
	return e.Err.Error()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes a classified error; %w works as in fmt.Errorf.
func Errorf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Err: fmt.Errorf(format, args...)}
}

// KindOf returns the kind of the outermost classified error in err's chain, or
// Other when there is none. Context errors are not kinds: ask errors.Is.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Other
}

// Is reports whether err is of kind k.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// IsContext reports whether err is the caller's own cancellation or deadline.
func IsContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
