// Package session serves one kernel FUSE session: it reads requests from a
// /dev/fuse descriptor that somebody else mounted, lets a RawFileSystem answer
// them, and writes the answers back.
//
// Owns: the read loop, the request buffers, the notifications to the kernel, and
// what is negotiated with it (capabilities.go).
//
// Never: mount(2) (fuse/keeper does), a path, a decision about files, go-fuse's
// own Server. That one mounts itself, wants its own INIT, and reads into memory
// that was never touched, so that a SIGKILL amid a read gives an application
// EIO.
//
// Flow: New replays the INIT request that the keeper kept, so that a successor
// speaks the same dialect; Accept answers it on the first serve, Resend asks for
// what a dead predecessor had read, on later ones. Run reads: FORGET and
// INTERRUPT are done by the reader itself, everything else gets a goroutine.
// Notifications go through the Notifier, whose thread carries a name
// (NotifierThread): a notification may wait in the kernel for a page that an
// unanswered request holds, so a killed process can linger there, and the keeper
// must be able to tell such a thread from one that reads requests.
//
// Locks: Session.mu guards the requests in flight and is held for no call.
// Notifier.mu guards its queue and is held for no write. Neither is taken while
// the other is held.
package session
