package keeper

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
)

// pageBytes bounds one answer; a message holds 64 KiB.
const pageBytes = 40 << 10

// list returns the sessions with ids greater than after, as many as a message
// holds.
func (k *Keeper) list(ctx context.Context, after string) (sessionsAnswer, error) {
	all, err := mounts()
	if err != nil {
		return sessionsAnswer{}, err
	}
	k.mu.Lock()
	current := k.mu.mounter
	here := current != nil && !current.lost
	k.mu.Unlock()

	var infos []SessionInfo
	held := make(map[string]bool) // devices
	for _, s := range k.all() {
		path, dev := s.where()
		if dev == "" {
			continue // not shown yet
		}
		held[dev] = true
		info := SessionInfo{ID: s.id, Target: s.target, ReadOnly: s.readOnly, Config: s.config, Dead: s.dead()}
		info.Serving = here && s.server() == current && !info.Dead
		for _, m := range ofDev(all, dev) {
			if m.path != path {
				info.Binds, info.BindOptions = append(info.Binds, m.path), append(info.BindOptions, m.options)
			}
		}
		infos = append(infos, info)
	}
	// What an earlier keeper made and no mounter has brought.
	orphans := make(map[string]int)
	for _, m := range all {
		id, mine := idOf(m, k.tag)
		if !mine || held[m.dev] || id <= after {
			continue
		}
		if i, ok := orphans[m.dev]; ok {
			infos[i].Binds, infos[i].BindOptions = append(infos[i].Binds, m.path), append(infos[i].BindOptions, m.options)
			continue
		}
		orphans[m.dev] = len(infos)
		infos = append(infos, SessionInfo{ID: id, Target: m.path, ReadOnly: m.options.ReadOnly, Dead: k.dead(ctx, m)})
	}
	infos = slices.DeleteFunc(infos, func(i SessionInfo) bool { return i.ID <= after })
	slices.SortFunc(infos, func(a, b SessionInfo) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Target, b.Target))
	})
	return page(infos), nil
}

// page cuts a list to what fits, never between two of one id.
func page(infos []SessionInfo) sessionsAnswer {
	size := 0
	for i, info := range infos {
		b, err := json.Marshal(info)
		if err == nil {
			size += len(b)
		}
		if size > pageBytes && i > 0 && infos[i-1].ID != info.ID {
			return sessionsAnswer{Sessions: infos[:i], More: true}
		}
	}
	return sessionsAnswer{Sessions: infos}
}
