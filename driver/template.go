package driver

import (
	"regexp"
	"strings"

	"github.com/holdfast-csi/holdfast/storage"
)

// template is a name with ${…} in it, which stand for names of the claim.
type template string

// claimKeys are what external-provisioner tells of a claim when it runs with
// --extra-create-metadata.
var claimKeys = map[string]string{
	"pvc.name":      ignoredPrefix + "pvc/name",
	"pvc.namespace": ignoredPrefix + "pvc/namespace",
	"pv.name":       ignoredPrefix + "pv/name",
}

var placeholder = regexp.MustCompile(`\$\{([^{}]*)\}`)

// parseTemplate refuses what no claim could fill.
func parseTemplate(s string) (template, error) {
	if s == "" {
		return "", storage.Errorf(storage.Invalid, "empty")
	}
	for _, found := range placeholder.FindAllStringSubmatch(s, -1) {
		if _, ok := claimKeys[found[1]]; !ok {
			return "", storage.Errorf(storage.Invalid, "%s is not known; %s are", found[0], templates)
		}
	}
	if rest := placeholder.ReplaceAllString(s, ""); strings.ContainsAny(rest, "${}") {
		return "", storage.Errorf(storage.Invalid, "a ${…} is not closed, or empty")
	}
	return template(s), nil
}

// fixed reports whether the name is the same for every claim: the administrator
// chose it, and no claim can lead it elsewhere.
func (t template) fixed() bool { return !strings.Contains(string(t), "${") }

// fill gives the name for the claim that given tells of.
func (t template) fill(given map[string]string) (string, error) {
	missing := ""
	filled := placeholder.ReplaceAllStringFunc(string(t), func(found string) string {
		key := claimKeys[strings.Trim(found, "${}")]
		if given[key] == "" && missing == "" {
			missing = key
		}
		return given[key]
	})
	if missing != "" {
		return "", storage.Errorf(storage.Invalid, "%q needs %s, which external-provisioner gives when it runs with --extra-create-metadata", string(t), missing)
	}
	return filled, nil
}
