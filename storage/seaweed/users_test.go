package seaweed_test

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/holdfast-csi/holdfast/storage"
	"github.com/holdfast-csi/holdfast/storage/seaweed"
	"github.com/holdfast-csi/holdfast/storage/storagetest"
)

// The suite of storage.Access runs where the gateway can be asked (s3client). What
// follows is about the files that users are kept in.

// newUser makes a user of a bucket that need not be there.
func newUser(t *testing.T, c *seaweed.Client) (name string, keys storage.Keys) {
	t.Helper()
	b := storagetest.Unique("user")
	name = "holdfast-" + string(b)
	keys, err := c.Grant(t.Context(), name, b, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Revoke(context.WithoutCancel(t.Context()), name); err != nil {
			t.Error(err)
		}
	})
	return name, keys
}

func TestUserNames(t *testing.T) {
	c := open(t)
	for _, user := range []string{"", "a/b", "../a", "a b", string(make([]byte, 65))} {
		_, err := c.Grant(t.Context(), user, "bucket", "")
		_, addErr := c.AddKeys(t.Context(), user)
		_, listErr := c.ListKeys(t.Context(), user)
		for what, err := range map[string]error{
			"Grant": err, "AddKeys": addErr, "ListKeys": listErr,
			"EndKeys": c.EndKeys(t.Context(), user, []string{"KEY"}), "Revoke": c.Revoke(t.Context(), user),
		} {
			if !storage.Is(err, storage.Invalid) {
				t.Errorf("%s(%q) = %v", what, user, err)
			}
		}
	}
}

// Keys that several controllers add and end at once are all there in the end, and
// none else.
func TestUserIsChangedByMany(t *testing.T) {
	c := open(t)
	name, first := newUser(t, c)
	var mu sync.Mutex
	var want []string
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			k, err := open(t).AddKeys(t.Context(), name)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			want = append(want, k.Access)
		})
	}
	all.Go(func() {
		if err := open(t).EndKeys(t.Context(), name, []string{first.Access}); err != nil {
			t.Error(err)
		}
	})
	all.Wait()
	have, err := c.ListKeys(t.Context(), name)
	slices.Sort(have)
	slices.Sort(want)
	if err != nil || !slices.Equal(have, want) {
		t.Errorf("keys = %v, %v, want %v", have, err, want)
	}
}

// What the gateway keeps of a user beside its keys stays, and a file that is not one
// of a user is refused without a word of what it holds.
func TestUserFileOfOthers(t *testing.T) {
	c := open(t)
	name, first := newUser(t, c)
	read := func() string {
		t.Helper()
		body, err := c.UserFile(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		return body
	}
	write := func(body string) {
		t.Helper()
		if err := c.PutUserFile(t.Context(), name, body); err != nil {
			t.Fatal(err)
		}
	}
	write(strings.Replace(read(), "{", `{"tags":[{"key":"team","value":"a"}],`, 1))
	if _, err := c.AddKeys(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if now := read(); !strings.Contains(now, `"team"`) || !strings.Contains(now, first.Access) || !strings.Contains(now, `"policy_names":["`+name+`"]`) {
		t.Errorf("after a key was added: %s", strings.ReplaceAll(now, first.Secret, "…"))
	}
	for _, body := range []string{"", "null", "hush", `["hush"]`, `{"credentials":"hush"}`} {
		write(body)
		_, addErr := c.AddKeys(t.Context(), name)
		_, listErr := c.ListKeys(t.Context(), name)
		for what, err := range map[string]error{"AddKeys": addErr, "ListKeys": listErr, "EndKeys": c.EndKeys(t.Context(), name, []string{"K"})} {
			if !storage.Is(err, storage.Corrupt) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%s of a user that is %q: %v", what, body, err)
			}
		}
	}
	if _, err := c.Grant(t.Context(), name, "bucket", ""); err != nil {
		t.Errorf("Grant over a damaged user: %v", err)
	}
	for _, body := range []string{
		"hush", `{"credentials":"hush"}`, `{"name":"x"}`, `{"policy_names":"x"}`, `{"policy_names":["` + name + `","more"]}`,
		`{"policy_names":["` + name + `"],"actions":["Admin"]}`, `{"policy_names":["` + name + `"],"disabled":true}`,
	} {
		write(body)
		if flaw, err := c.Check(t.Context(), name, "bucket", ""); err != nil || flaw == "" || strings.Contains(flaw, "hush") {
			t.Errorf("check of a user that is %s: %q, %v", body, flaw, err)
		}
		if err := c.Restore(t.Context(), name, "bucket", ""); err != nil {
			t.Errorf("restore of a user that is %s: %v", body, err)
		}
		if flaw, err := c.Check(t.Context(), name, "bucket", ""); err != nil || flaw != "" {
			t.Errorf("after the restore of a user that was %s: %q, %v", body, flaw, err)
		}
	}
}

// An inline policy, which an earlier user of that name or somebody's hand has left, is
// told, and does not outlive what makes or ends the user. Those of others stay.
func TestInlinePolicyOfAUser(t *testing.T) {
	c := open(t)
	for what, do := range map[string]func(name string, b storage.BucketName) error{
		"grant": func(name string, b storage.BucketName) error {
			_, err := c.Grant(t.Context(), name, b, "")
			return err
		},
		"restore": func(name string, b storage.BucketName) error { return c.Restore(t.Context(), name, b, "") },
		"revoke":  func(name string, _ storage.BucketName) error { return c.Revoke(t.Context(), name) },
	} {
		name, _ := newUser(t, c)
		b := storage.BucketName(strings.TrimPrefix(name, "holdfast-"))
		const others = `{"policies":{"p":{"Version":"2012-10-17"}},"inlinePolicies":{"other":{"own":{"Version":"2012-10-17"}}`
		if _, err := c.InlinePolicies(t.Context(), others+`,"`+name+`":{"all":{"Version":"2012-10-17"}}}}`); err != nil {
			t.Fatal(err)
		}
		if flaw, err := c.Check(t.Context(), name, b, ""); err != nil || !strings.Contains(flaw, "inline policy") {
			t.Errorf("check: %q, %v", flaw, err)
		}
		if err := do(name, b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		left, err := c.InlinePolicies(t.Context(), "")
		if err != nil || strings.Contains(left, name) || !strings.Contains(left, `"other"`) || !strings.Contains(left, `"p"`) {
			t.Errorf("after %s: %s, %v", what, left, err)
		}
		if flaw, err := c.Check(t.Context(), name, b, ""); what != "revoke" && (err != nil || flaw != "") {
			t.Errorf("check after %s: %q, %v", what, flaw, err)
		}
	}
}
