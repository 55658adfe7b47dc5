package repository_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
	"github.com/kura-backup/terraform-provider-kura/server/repository"
)

// childCollects makes the test binary a server that writes, deletes and
// collects, by a clock that is ahead by so many hours.
const childCollects = "KURA_TEST_COLLECTS"

// numbered is the disk of image n: all share most of it.
func numbered(n int) *disk {
	d := solid(rng(1), 4)
	rewrite(rng(uint64(n)), d, int64(n%4), int64(n%4)+1)
	return d
}

// keepHouseUntilKilled tells each step before it takes it, and when it is done.
func keepHouseUntilKilled(path string, password backup.Secret, hours string) {
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			fmt.Println("failed", err)
			os.Exit(1)
		}
	}
	start, err := strconv.Atoi(hours)
	check(err)
	ahead := time.Duration(start) * time.Hour
	rec := record(path)
	rec.Password = password
	dir, err := os.MkdirTemp("", "kura-child-")
	check(err)
	r, err := repository.New(repository.Config{Installation: "installation-1", Dir: dir, Now: func() time.Time { return time.Now().Add(ahead) }}).Repository(ctx, rec)
	check(err)
	check(os.RemoveAll(dir)) // it is not read again, and nobody tidies up after a kill
	for n := start; ; n++ {
		all, err := r.Images(ctx)
		check(err)
		d := draft(fmt.Sprint("image-", n))
		d.PointInTime = d.PointInTime.Add(time.Duration(n) * time.Hour)
		if len(all) > 0 {
			d.BaseRef = all[len(all)-1].Image.Ref
		}
		fmt.Println("writing", d.ImageID)
		check(attempt(ctx, r, d, numbered(n)))
		fmt.Println("written", d.ImageID)
		for len(all) > 1 {
			fmt.Println("deleting", all[0].Image.ID)
			check(r.Delete(ctx, all[0].Image.Ref))
			fmt.Println("deleted", all[0].Image.ID)
			all = all[1:]
		}
		ahead += 9 * time.Hour
		fmt.Println("collecting", ahead)
		c, err := repository.CollectByClock(ctx, r, backup.Collection{Alive: func(string) bool { return false }})
		check(err)
		fmt.Println("collected", c.FreedPacks)
	}
}

// housekeeping is what a test knows of servers that were killed.
type housekeeping struct {
	*site
	state map[string]string        // of each image: the last that was said of it
	took  map[string]time.Duration // the last time of each step
	hit   map[string]int           // kills, by the step that they came in
	freed int
	read  int
}

var doing = map[string]string{"written": "writing", "deleted": "deleting", "collected": "collecting"}

// hear takes a line of a server, said so long after the one before.
func (h *housekeeping) hear(line string, after time.Duration) (word string) {
	word, of, _ := strings.Cut(line, " ")
	if word == "failed" {
		h.t.Fatal(line)
	}
	if step := doing[word]; step != "" {
		h.took[step] = after
	}
	if word == "collected" {
		h.freed += must(strconv.Atoi(of))(h.t)
	}
	if strings.HasPrefix(of, "image-") {
		h.state[of] = word
	}
	return word
}

// kill starts a server whose clock is ahead, and kills it in a step of that
// kind, or shortly after.
func (h *housekeeping) kill(hours int, step string, nth int, moment float64) {
	h.t.Helper()
	c := exec.Command(must(os.Executable())(h.t))
	c.Env = append(os.Environ(), childRecord+"="+h.dir, childPass+"="+h.rec.Password.Reveal(), fmt.Sprintf("%s=%d", childCollects, hours))
	out := must(c.StdoutPipe())(h.t)
	must(0, c.Start())(h.t)
	lines := bufio.NewReader(out)
	last, word := time.Now(), ""
	hear := func() error {
		line, err := lines.ReadString('\n')
		if err == nil {
			word = h.hear(strings.TrimSpace(line), time.Since(last))
			last = time.Now()
		}
		return err
	}
	for nth > 0 {
		must(0, hear())(h.t)
		if word == step {
			nth--
		}
	}
	timer := time.NewTimer(time.Duration(moment * float64(h.took[step])))
	<-timer.C // anywhere in the step
	must(0, c.Process.Kill())(h.t)
	var err error
	for err == nil { // what it has said meanwhile
		err = hear()
	}
	if !errors.Is(err, io.EOF) || c.Wait() == nil {
		h.t.Fatalf("the server ended by itself: %v", err)
	}
	h.hit[word]++
}

// look compares what is listed with what the servers have said, and every byte
// of it.
func (h *housekeeping) look(r backup.Repository) {
	h.t.Helper()
	listed := map[string]bool{}
	for _, m := range must(r.Images(h.t.Context()))(h.t) {
		id := m.Image.ID
		listed[id] = true
		if h.state[id] == "deleted" {
			h.t.Errorf("%s is listed, and was deleted", id)
		}
		compare(h.t, r, m.Image.Ref, numbered(must(strconv.Atoi(strings.TrimPrefix(id, "image-")))(h.t)))
		h.state[id] = "written"
		h.read++
	}
	for id, state := range h.state {
		if state == "written" && !listed[id] {
			h.t.Errorf("%s was written and is not listed", id)
		}
		if !listed[id] {
			h.state[id] = "deleted" // or never was
		}
	}
}

func TestKillsWhileWritingDeletingAndCollectingHurtNoImage(t *testing.T) {
	t.Parallel()
	kills := 6
	if os.Getenv("KURA_TORTURE") == "full" {
		kills = 51
	}
	h := &housekeeping{site: newSite(t), state: map[string]string{}, took: map[string]time.Duration{}, hit: map[string]int{}}
	random := rng(uint64(time.Now().UnixNano()))
	begin := time.Now()
	for n := range kills {
		step := []string{"writing", "deleting", "collecting"}[n%3]
		h.kill(1000*(n+1), step, 1+random.IntN(2), random.Float64())
		r := h.Repository // as another server sees it
		if n%3 == 2 {
			r = h.again() // as the next one finds it
		}
		h.look(r)
	}
	within := h.hit["writing"] + h.hit["deleting"] + h.hit["collecting"]
	t.Logf("%d kills in %s: %d while writing, %d while deleting, %d while collecting, %d in between; %d images read and whole; %d packs freed by the killed",
		kills, time.Since(begin).Round(time.Second), h.hit["writing"], h.hit["deleting"], h.hit["collecting"], kills-within, h.read, h.freed)
	if within == 0 || h.read < kills {
		t.Errorf("%d kills came in the middle of a step and %d images were read; want some of the first and more of the second", within, h.read)
	}
}
