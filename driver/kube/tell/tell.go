package tell

import (
	"cmp"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
)

// again is when a trouble that lasts is told again: an API server forgets an event
// after an hour, and describe should still show it.
const again = 20 * time.Minute

// maxMessage is the API's limit of an event's message, in bytes.
const maxMessage = 1024

// Object is what an event can be about.
type Object interface {
	runtime.Object
	v1.Object
}

// Teller writes the events of this process.
type Teller struct {
	recorder record.EventRecorder
	again    time.Duration

	mu struct {
		sync.Mutex
		told map[types.UID]map[string]told
	}
}

// told is the last event about one matter of an object.
type told struct {
	reason string
	at     time.Time
}

// New makes a Teller. every is when a trouble is told again; 0 for the usual.
func New(recorder record.EventRecorder, every time.Duration) *Teller {
	t := &Teller{recorder: recorder, again: cmp.Or(every, again)}
	t.mu.told = map[types.UID]map[string]told{}
	return t
}

// Trouble writes a warning about a matter of an object, unless that was just told.
// matter keeps apart what can be wrong at the same time, and is no part of the event.
// Another text alone is no news: figures in it change with each look. It reports whether
// one was written.
func (t *Teller) Trouble(about Object, matter, reason, message string) bool {
	t.mu.Lock()
	of := t.mu.told[about.GetUID()]
	if last, ok := of[matter]; ok && last.reason == reason && time.Since(last.at) < t.again {
		t.mu.Unlock()
		return false
	}
	t.pruneLocked()
	if of = t.mu.told[about.GetUID()]; of == nil {
		of = map[string]told{}
		t.mu.told[about.GetUID()] = of
	}
	of[matter] = told{reason, time.Now()}
	t.mu.Unlock()
	t.recorder.Event(about, corev1.EventTypeWarning, reason, cut(message))
	return true
}

// Well writes a normal event if trouble was told in this matter, by this process, and
// reports whether it was.
func (t *Teller) Well(about Object, matter, reason, message string) bool {
	was := t.forget(about.GetUID(), matter)
	if was {
		t.recorder.Event(about, corev1.EventTypeNormal, reason, cut(message))
	}
	return was
}

// Over forgets a trouble without a word.
func (t *Teller) Over(about Object, matter string) { t.forget(about.GetUID(), matter) }

func (t *Teller) forget(uid types.UID, matter string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.mu.told[uid]
	_, was := of[matter]
	delete(of, matter)
	if len(of) == 0 {
		delete(t.mu.told, uid)
	}
	return was
}

// Note writes a normal event about something that happened once.
func (t *Teller) Note(about Object, reason, message string) {
	t.recorder.Event(about, corev1.EventTypeNormal, reason, cut(message))
}

// pruneLocked forgets what nobody looks at any more: of objects that are gone.
func (t *Teller) pruneLocked() {
	for uid, of := range t.mu.told {
		maps.DeleteFunc(of, func(_ string, last told) bool { return time.Since(last.at) > 3*t.again })
		if len(of) == 0 {
			delete(t.mu.told, uid)
		}
	}
}

// cut keeps a message within the API's limit, and whole characters.
func cut(s string) string {
	const more = "…"
	if len(s) <= maxMessage {
		return s
	}
	end := maxMessage - len(more)
	for end > 0 && s[end]&0xC0 == 0x80 {
		end--
	}
	return s[:end] + more
}
