package driver

import (
	"maps"
	"slices"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// ignoredPrefix marks what the sidecars add: names of the claim and of its
// volume. They say nothing about the volume and are not kept.
const ignoredPrefix = "csi.storage.k8s.io/"

// knownParams are the parameters of a StorageClass, each with a check of its
// value. There are none yet.
var knownParams = map[string]func(value string) error{}

// parseParams returns the parameters to keep. An unknown one is refused: a typing
// mistake must not make a volume that is not what was asked for.
func parseParams(given map[string]string, known map[string]func(string) error) (map[string]string, error) {
	kept := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if strings.HasPrefix(name, ignoredPrefix) {
			continue
		}
		check, ok := known[name]
		if !ok {
			return nil, storage.Errorf(storage.Invalid, "parameter %q is not known%s", name, suggest(name, known))
		}
		if err := check(given[name]); err != nil {
			return nil, storage.Errorf(storage.Invalid, "parameter %s: %w", name, err)
		}
		kept[name] = given[name]
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return kept, nil
}

func suggest(name string, known map[string]func(string) error) string {
	if len(known) == 0 {
		return ": this version has no parameters"
	}
	best, least := "", 0
	for _, k := range slices.Sorted(maps.Keys(known)) {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); best == "" || d < least {
			best, least = k, d
		}
	}
	return "; the nearest known one is " + best
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
