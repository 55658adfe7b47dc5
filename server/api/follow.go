package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// Final says whether a job in this state is over.
func (s JobState) Final() bool { return s != JobStateQueued && s != JobStateRunning }

// Final says whether a run in this state is over.
func (s RunState) Final() bool { return s != RunStateQueued && s != RunStateRunning }

// FollowJob calls each (nil = nobody) with the job now and whenever it changes,
// until it is over, and returns it as it ended. A stream that breaks is opened
// again for as long as ctx lasts.
func (c *ClientWithResponses) FollowJob(ctx context.Context, id string, each func(Job)) (Job, error) {
	for try := 0; ; try++ {
		job, err := c.followOnce(ctx, id, each)
		if err != nil || job.State.Final() {
			return job, err
		}
		if job.ID != "" {
			try = 0
		}
		select {
		case <-ctx.Done():
			return job, ctx.Err()
		case <-time.After(pause(try, nil)):
		}
	}
}

// followOnce reads one stream. It returns a job that is not final, and no
// error, when the stream broke.
func (c *ClientWithResponses) followOnce(ctx context.Context, id string, each func(Job)) (last Job, err error) {
	resp, err := c.StreamJobEvents(ctx, id)
	if err != nil {
		return Job{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		a, err := ParseStreamJobEventsResponse(resp)
		return Job{}, Err(a, err)
	}
	events := bufio.NewScanner(resp.Body)
	events.Buffer(nil, 4<<20)
	for events.Scan() {
		data, ok := strings.CutPrefix(events.Text(), "data: ")
		if !ok {
			continue
		}
		var job Job
		if err := json.Unmarshal([]byte(data), &job); err != nil {
			return last, fmt.Errorf("event of job %s: %w", id, err)
		}
		if last = job; each != nil {
			each(job)
		}
	}
	if ctx.Err() != nil {
		return last, ctx.Err()
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	return last, nil
}
