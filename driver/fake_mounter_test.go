package driver

import (
	"context"
	"encoding/json"
	"slices"
	"sync"

	"github.com/holdfast-csi/holdfast/storage"
)

// fakeMounter is a keeper without a kernel: it remembers, and it is the mount
// table too.
type fakeMounter struct {
	mu struct {
		sync.Mutex
		mounts []Mounted
		// at has every mount point, with its options.
		at      map[string]BindOptions
		configs []MountConfig
		// contexts are those of at, where there is one.
		contexts map[string]string
	}
	// fail is returned by the call of that name.
	fail map[string]error
	// health is told of every mount.
	health Health
}

var (
	_ Mounter    = (*fakeMounter)(nil)
	_ MountTable = (*fakeMounter)(nil)
)

func newFakeMounter() *fakeMounter {
	f := &fakeMounter{fail: map[string]error{}}
	f.mu.at, f.mu.contexts = map[string]BindOptions{}, map[string]string{}
	return f
}

func (f *fakeMounter) Settle(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if slices.ContainsFunc(f.mu.mounts, func(m Mounted) bool { return m.ID == id }) {
		return storage.Errorf(storage.InUse, "volume %s is mounted", id)
	}
	return f.fail["Settle"]
}

func (f *fakeMounter) Mount(_ context.Context, id, target string, o MountOptions, config []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["Mount"]; err != nil {
		return err
	}
	var c MountConfig
	if err := json.Unmarshal(config, &c); err != nil {
		return err
	}
	f.mu.configs = append(f.mu.configs, c)
	for i := range f.mu.mounts {
		if f.mu.mounts[i].ID == id {
			f.mu.mounts[i].Healthy, f.mu.mounts[i].Dead = true, false
			return nil
		}
	}
	f.mu.at[target] = BindOptions{ReadOnly: o.ReadOnly}
	f.mu.contexts[target] = o.Context
	f.mu.mounts = append(f.mu.mounts, Mounted{ID: id, Target: target, ReadOnly: o.ReadOnly, Healthy: true, Group: c.Group, Inline: c.Inline})
	return nil
}

func (f *fakeMounter) Bind(_ context.Context, id, target string, o BindOptions) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["Bind"]; err != nil {
		return err
	}
	for i := range f.mu.mounts {
		if f.mu.mounts[i].ID == id {
			f.mu.mounts[i].Binds = append(f.mu.mounts[i].Binds, target)
			f.mu.at[target] = o
			return nil
		}
	}
	return storage.Errorf(storage.NotFound, "%s is not mounted", id)
}

func (f *fakeMounter) Unmount(_ context.Context, target string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["Unmount"]; err != nil {
		return err
	}
	delete(f.mu.at, target)
	delete(f.mu.contexts, target)
	f.mu.mounts = slices.DeleteFunc(f.mu.mounts, func(m Mounted) bool { return m.Target == target })
	for i := range f.mu.mounts {
		f.mu.mounts[i].Binds = slices.DeleteFunc(f.mu.mounts[i].Binds, func(b string) bool { return b == target })
	}
	return nil
}

func (f *fakeMounter) Mounts(context.Context) ([]Mounted, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["Mounts"]; err != nil {
		return nil, err
	}
	list := slices.Clone(f.mu.mounts)
	for i := range list {
		list[i].Binds = slices.Clone(list[i].Binds)
	}
	return list, nil
}

// Health is that of a mount that is well, but for what hurt and the test say.
func (f *fakeMounter) Health(_ context.Context, id string) (Health, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.fail["Health"]; err != nil {
		return Health{}, err
	}
	h := f.health
	for _, m := range f.mu.mounts {
		if m.ID == id {
			h.Serving, h.Dead = m.Healthy, m.Dead
			return h, nil
		}
	}
	return Health{}, storage.Errorf(storage.NotFound, "%s is not mounted", id)
}

func (f *fakeMounter) Mounted(path string) (mounted bool, o BindOptions, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, mounted = f.mu.at[path]
	return mounted, o, nil
}

func (f *fakeMounter) Context(path string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.contexts[path], nil
}

// hurt makes a mount unhealthy.
func (f *fakeMounter) hurt(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.mu.mounts {
		if f.mu.mounts[i].ID == id {
			f.mu.mounts[i].Healthy = false
		}
	}
}
