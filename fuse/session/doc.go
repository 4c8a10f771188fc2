// Package session serves one kernel FUSE session: it reads requests from a
// /dev/fuse descriptor that somebody else mounted, lets a RawFileSystem answer
// them, and writes the answers back.
//
// Owns: the read loop, the slots that requests are read into, the notifications to
// the kernel, and what is negotiated with it (capabilities.go).
//
// Never: mount(2) (fuse/keeper does), a path, a decision about files, go-fuse's
// own Server. That one mounts itself, wants its own INIT, and reads into memory
// that was never touched, so that a SIGKILL amid a read gives an application
// EIO.
//
// Flow: New replays the INIT request that the keeper kept, so that a successor
// speaks the same dialect; Accept answers it on the first serve. Run first
// answers what a dead predecessor had read (leftover.go), then reads: FORGET and
// INTERRUPT are done by the reader itself, everything else gets a goroutine.
// Notifications go through the Notifier, whose thread carries a name
// (NotifierThread): a notification may wait in the kernel for a page that an
// unanswered request holds, so a killed process can linger there, and the keeper
// must be able to tell such a thread from one that reads requests.
//
// Slots: a request is read into a slot of a memfd (slots.go, format.go), stays
// there until its answer is written, and is found there by the next process: so
// no kernel has to send anything again. One pool serves all sessions of a
// process, because each read must offer room for the largest WRITE; a slot
// carries the key of its session, so the pool may be shared. The keeper holds the
// memfd when the process dies, the process when the keeper dies.
//
// Bounds: what a session costs is bounded by the slots, whatever hangs: as many
// handlers as there are slots, as many large writes as DefaultLarge, as many large
// answers as DefaultAnswers, of each half for one session. FORGET is done by the
// reader itself, INTERRUPT and everything small has slots of its own, and a
// large read waits in its handler; the reader waits only when a session's half of
// the large writes hangs, or four thousand small requests do.
//
// What a file system may rely on, whoever is killed when:
//
//   - A request that was answered is not run again.
//   - A request that may have run before has bit 63 of its unique set. It
//     may have run in part, and more than once. What has not run may have the
//     bit, too.
//   - No handler of a new request begins before those of the predecessor's have
//     answered, but for FORGET; these run side by side, as they did. What the
//     kernel sends again (Resend) is not held back so: it comes in no order, beside
//     new requests. Those of one file or folder that depend on each other the
//     kernel does not have under way at the same time: whoever waits for an answer
//     holds the inode's lock.
//   - A FORGET comes once, with its count. It is lost, and its node is known for
//     too long, when the process dies within raw.Forget, or where requests have
//     to be sent again because the slots were missing or damaged.
//   - An INTERRUPT is heard in the process that answers the request.
//
// Locks: Session.mu guards the requests in flight, Slots.mu the lists of slots,
// Pools.mu which memfds are mapped; Slots.mu is taken within Pools.mu, and none
// is held for a call to the file system or the kernel's queue. Notifier.mu guards
// its queue and is held for no write. Else none is taken while another is held.
package session
