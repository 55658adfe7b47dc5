package backup

import "encoding/json"

// WaitingNote is what a job that leads others tells one of them.
type WaitingNote struct {
	Leader      string // the job that JobID waits for
	JobID       string
	Checkpoint  json.RawMessage
	KeptAttempt int // names the snapshot that was made for it, or is about to be
	// Begun says that the job's work has begun with that: it goes on after its
	// deadline, and its VM is its own until it is over.
	Begun    bool
	Messages []string
}
