package storage

import (
	"strings"
	"unicode/utf8"
)

// Path names an entry below the root of a bucket: elements joined by single
// slashes, no leading or trailing one. The root is the empty path.
type Path string

// MaxName is the longest name in bytes, SeaweedFS's limit and Linux's NAME_MAX.
const MaxName = 255

// Join appends one name.
func (p Path) Join(name string) Path {
	if p == "" {
		return Path(name)
	}
	return p + "/" + Path(name)
}

// Split returns the path of the parent and the last name. The root gives two
// empty strings.
func (p Path) Split() (Path, string) {
	i := strings.LastIndexByte(string(p), '/')
	if i < 0 {
		return "", string(p)
	}
	return p[:i], string(p[i+1:])
}

// Within reports whether p is dir or lies below it.
func (p Path) Within(dir Path) bool {
	return dir == "" || p == dir || strings.HasPrefix(string(p), string(dir)+"/")
}

// CheckFolder says whether p can be the folder of a bucket that is a volume: names
// that CheckName takes, of letters, digits and -_.=@+ alone, since some of the
// others are patterns in a policy; in all no longer than an S3 key may be, with
// room for names below. The root, the empty path, is one.
func (p Path) CheckFolder() error {
	if p == "" {
		return nil
	}
	const longest = 512
	if len(p) > longest {
		return Errorf(Invalid, "folder of %d bytes: at most %d are allowed", len(p), longest)
	}
	for name := range strings.SplitSeq(string(p), "/") {
		if err := CheckName(name); err != nil {
			return Errorf(Invalid, "folder %q: names joined by single slashes are allowed, without one at either end: %w", string(p), err)
		}
		if i := strings.IndexFunc(name, func(r rune) bool { return !folderRune(r) }); i >= 0 {
			return Errorf(Invalid, "folder %q: letters, digits and -_.=@+ are allowed, with single slashes between names", string(p))
		}
	}
	return nil
}

func folderRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.=@+", r)
}

// CheckName says whether name can be an entry of a bucket: not empty, not "."
// or "..", no slash or NUL, at most MaxName bytes, UTF-8 (the wire is), and not
// one of the names that the S3 gateway keeps for itself.
func CheckName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return Errorf(Invalid, "name %q: must be one path element", name)
	case len(name) > MaxName:
		return Errorf(TooLong, "name of %d bytes: at most %d are allowed", len(name), MaxName)
	case !utf8.ValidString(name):
		return Errorf(Invalid, "name %q: must be UTF-8", name)
	case name == ".uploads" || strings.HasSuffix(name, ".versions"):
		return Errorf(NotPermitted, "name %q: reserved by the S3 gateway (.uploads, *.versions)", name)
	}
	return nil
}
