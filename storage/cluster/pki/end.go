package pki

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// End is when a certificate ends.
type End struct {
	Name string    `json:"name"`
	At   time.Time `json:"ends"`
}

// Ends tells of the authority in dir ("ca") and of the certificates beside it,
// as far as we may read them. Without a folder there are none.
func Ends(dir string) ([]End, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.pem"))
	if err != nil {
		return nil, err
	}
	var ends []End
	for _, f := range append([]string{filepath.Join(dir, caKeyName)}, files...) {
		p, err := readPair(f)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrPermission) {
			continue
		}
		if err != nil {
			return ends, err
		}
		name, _, _ := strings.Cut(filepath.Base(f), ".")
		ends = append(ends, End{name, p.cert.NotAfter})
	}
	return ends, nil
}

// Ended are those that have.
func Ended(ends []End, now time.Time) []End {
	return slices.DeleteFunc(slices.Clone(ends), func(e End) bool { return now.Before(e.At) })
}
