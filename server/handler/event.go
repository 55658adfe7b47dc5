package handler

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// StreamJobEvents implements the operation.
func (h *handler) StreamJobEvents(ctx context.Context, q api.StreamJobEventsRequestObject) (api.StreamJobEventsResponseObject, error) {
	j, err := h.job(ctx, q.ID)
	if err != nil {
		return nil, err
	}
	return jobStream{h: h, ctx: ctx, first: j}, nil
}

// jobStream tells a job's changes until it is over. It holds its request's
// context, since what the generated code calls gives it none.
type jobStream struct {
	h     *handler
	ctx   context.Context //nolint:containedctx // see above
	first backup.Job
}

// VisitStreamJobEventsResponse writes the events. What fails here fails after
// the answer has begun: the stream ends, and a client looks again.
func (s jobStream) VisitStreamJobEventsResponse(w http.ResponseWriter) error {
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.WriteHeader(http.StatusOK)
	poll, beat := time.NewTicker(s.h.Poll), time.NewTicker(s.h.Heartbeat)
	defer poll.Stop()
	defer beat.Stop()

	job, told := s.first, []byte(nil)
	var err error
	for {
		if told, err = tell(w, job, told); err != nil {
			break
		}
		if out.Flush() != nil || job.State.Final() {
			return nil
		}
		select {
		case <-s.ctx.Done():
			return nil
		case <-beat.C:
			if _, err := fmt.Fprint(w, ": still here\n\n"); err != nil {
				return nil
			}
		case <-poll.C:
			job, err = s.h.job(s.ctx, job.ID)
		}
		if err != nil {
			break
		}
	}
	if s.ctx.Err() == nil {
		s.h.Log.WarnContext(s.ctx, "job events ended early", "job", s.first.ID, "error", err)
	}
	return nil
}

// tell writes the job when it differs from what was told last.
func tell(w http.ResponseWriter, j backup.Job, told []byte) ([]byte, error) {
	now, err := json.Marshal(jobOut(j))
	if err != nil || bytes.Equal(now, told) {
		return told, err
	}
	_, err = fmt.Fprintf(w, "event: job\ndata: %s\n\n", now)
	return now, err
}
