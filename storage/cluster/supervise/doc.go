// Package supervise starts child processes, starts them again when they die, and
// leaves none behind.
//
// Owns: the children it forked, from fork to reaping, and their log files.
//
// Never: what a child is for. It knows no weed, no volume, no mount; the caller
// says how a child is started and how it shows that it is ready.
//
// Flow: NewGroup; Group.Start forks all children at once and waits until each is
// ready; from then on each Process starts its child again after a back-off;
// Group.Stop asks politely and then kills; Group.Close ends what is left.
//
// No child outlives us: each has the parent-death signal SIGKILL. The kernel ties
// that signal to the thread that forked, so one locked thread per group does all
// the forking and lives until Close. Each child leads a process group of its own,
// which is killed when the leader is gone: a terminal's ^C reaches us alone, and
// grandchildren do not stay.
//
// Locks: Group.mu, Process.mu, child.mu and output.mu are leaves: none is held
// while another is taken or while waiting. Under child.mu a signal is sent: the
// lock keeps the child from being reaped, so that its number cannot be another's.
package supervise
