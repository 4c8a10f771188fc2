// Package tell writes events about what is wrong, once and not each time that it is
// looked at.
//
// Owns: what was told about which object, so that a look every few seconds makes one
// event, a lasting trouble is told again now and then (events live for an hour), and the
// end of a trouble is told if the trouble was.
//
// Never: a secret. Texts come from callers, who hold this up.
//
// Flow: Trouble, Well, Note → client-go's recorder, which counts repeated events up and
// bounds them per object.
//
// Locks: one, for a map access; the recorder only puts an event into its queue.
package tell
