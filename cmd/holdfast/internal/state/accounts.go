package state

import "fmt"

// Account is a user and a group that a process runs as.
type Account struct{ UID, GID int }

// Accounts are those of the processes of a state. The numbers need no entry in
// /etc/passwd, and none is likely to have them: login.defs gives people 1000 to
// 60000 and container ranges begin at 100000.
type Accounts struct {
	// Services runs weed and the controller, Mounter what serves the mounts, and
	// Node the node service.
	Services, Mounter, Node Account
}

// AccountsFor returns the accounts of an installation started by uid: root sets
// its processes apart, everybody else runs them all.
func AccountsFor(uid, gid int) Accounts {
	if uid == 0 {
		return Accounts{
			Services: Account{64800, 64800},
			Mounter:  Account{64801, 64801},
			Node:     Account{0, 0},
		}
	}
	me := Account{uid, gid}
	return Accounts{Services: me, Mounter: me, Node: me}
}

func (a Account) String() string { return fmt.Sprintf("uid %d", a.UID) }
