package driver

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// ignoredPrefix marks what the sidecars add: names of the claim and of its
// volume. They fill templates and are not kept.
const ignoredPrefix = "csi.storage.k8s.io/"

// parseParams judges the parameters of a StorageClass. An unknown one is refused,
// and one that is known elsewhere and has no effect here too: a volume must not be
// another one than what was asked for.
func parseParams(given map[string]string) (settings, error) {
	s := settings{kept: map[string]string{}}
	own, spelled := map[string]string{}, map[string]string{}
	take := func(name, as, value string) error {
		if was, twice := own[name]; twice && was != value {
			return storage.Errorf(storage.Invalid, "parameters %s (%q) and %s (%q) mean the same and differ: give one of them", spelled[name], was, as, value)
		}
		own[name], spelled[name] = value, as
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if strings.HasPrefix(name, ignoredPrefix) {
			continue
		}
		if err := takeParam(name, given[name], take); err != nil {
			return settings{}, err
		}
	}
	for _, p := range parameters {
		value, ok := own[p.name]
		if !ok {
			continue
		}
		if err := p.set(&s, value); errors.Is(err, errValue) {
			return settings{}, storage.Errorf(storage.Invalid, "parameter %s=%q: %s is allowed", spelled[p.name], value, p.values)
		} else if err != nil {
			return settings{}, storage.Errorf(storage.Invalid, "parameter %s=%q: %w; %s is allowed", spelled[p.name], value, err, p.values)
		}
		if p.same == "" || value != p.same {
			s.kept[p.name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if f, ok := foreignOf(name); ok && !f.suits(given[name], s) {
			return settings{}, storage.Errorf(storage.Invalid, "parameter %s=%q of %s: %s", name, given[name], f.of, f.reason)
		}
	}
	return s, s.check()
}

// takeParam finds the rows that a parameter, by whatever name, is a value of.
func takeParam(name, value string, take func(name, as, value string) error) error {
	for _, p := range parameters {
		if p.name == name || slices.Contains(p.aliases, name) {
			return take(p.name, name, value)
		}
	}
	if name == pathName {
		bucket, prefix, err := splitPath(value)
		if err == nil {
			err = take("bucketName", name, bucket)
		}
		if err == nil && prefix != "" {
			err = take("prefix", name, prefix)
		}
		return err
	}
	if slices.Contains(cacheNames, name) {
		return take("cacheSize", name, mebibytes(value))
	}
	if _, ok := foreignOf(name); ok {
		return nil // judged when all the others are known
	}
	return storage.Errorf(storage.Invalid, "parameter %q is not known; the nearest known one is %s (holdfast parameters lists all)", name, nearest(name))
}

// check judges what parameters say together.
func (s settings) check() error {
	if s.commitDelay > 0 && s.durability != NodeDurability {
		return storage.Errorf(storage.Invalid, "parameter commitDelay=%q needs durability=node: with durability=cluster, fsync and close wait for the cluster", s.kept["commitDelay"])
	}
	if s.bucket.fixed() && s.bucket != "" {
		if err := checkBucket(string(s.bucket)); err != nil {
			return err
		}
	}
	if s.prefix == "" {
		return nil
	}
	if s.prefix.fixed() {
		if err := storage.Path(s.prefix).CheckFolder(); err != nil {
			return storage.Errorf(storage.Invalid, "parameter prefix: %w", err)
		}
	}
	if s.bucket == "" {
		return storage.Errorf(storage.Invalid, "parameter prefix=%q needs bucketName: it is a folder of that bucket", string(s.prefix))
	}
	if s.onDelete != storage.Retain && s.onDelete != storage.Archive {
		return storage.Errorf(storage.Invalid, "parameter prefix=%q needs onDelete=retain or onDelete=archive: a folder is not deleted with its volume", string(s.prefix))
	}
	return nil
}

func checkBucket(name string) error {
	if !usable(name) {
		if err := storage.BucketName(name).Check(); err != nil {
			return storage.Errorf(storage.Invalid, "parameter bucketName: %w", err)
		}
		return storage.Errorf(storage.Invalid, "parameter bucketName: %q is a name that S3 keeps for itself, or that reads as an address: choose another", name)
	}
	return nil
}

// difference names the parameters that are not the same.
func difference(have, want map[string]string) string {
	var words []string
	for _, p := range parameters {
		h, inHave := have[p.name]
		w, inWant := want[p.name]
		switch {
		case inHave && inWant && h != w:
			words = append(words, fmt.Sprintf("%s is %q, not %q", p.name, h, w))
		case inHave && !inWant:
			words = append(words, fmt.Sprintf("%s is %q and was not given", p.name, h))
		case !inHave && inWant:
			words = append(words, fmt.Sprintf("%s is not set, and %q was given", p.name, w))
		}
	}
	return strings.Join(words, "; ")
}

// nearest is the known name with the least distance.
func nearest(name string) string {
	known := append([]string{pathName}, cacheNames...)
	for _, p := range parameters {
		known = append(append(known, p.name), p.aliases...)
	}
	for _, f := range foreign {
		known = append(known, f.names...)
	}
	slices.Sort(known)
	return slices.MinFunc(known, func(a, b string) int {
		return distance(strings.ToLower(name), strings.ToLower(a)) - distance(strings.ToLower(name), strings.ToLower(b))
	})
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
