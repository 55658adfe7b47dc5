package repository_test

import (
	"bufio"
	"context"
	"fmt"
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

// keepHouseUntilKilled tells each step before it takes it.
func keepHouseUntilKilled(path string, password backup.Secret, hours string) {
	ctx := context.Background()
	check := func(err error) {
		if err != nil {
			fmt.Println("failed:", err)
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
		fmt.Println("writing")
		check(attempt(ctx, r, draft(fmt.Sprint("image-", n)), numbered(n)))
		all, err := r.Images(ctx)
		check(err)
		for len(all) > 2 {
			fmt.Println("deleting")
			check(r.Delete(ctx, all[0].Image.Ref))
			all = all[1:]
		}
		ahead += 9 * time.Hour
		fmt.Println("collecting")
		_, err = repository.CollectByClock(ctx, r, backup.Collection{Alive: func(string) bool { return false }})
		check(err)
	}
}

func TestKillsWhileWritingDeletingAndCollectingHurtNoImage(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newSite(t)
	random := rng(uint64(time.Now().UnixNano()))
	seen := map[string]int{}
	for n := range 12 {
		c := exec.Command(must(os.Executable())(t))
		c.Env = append(os.Environ(), childRecord+"="+s.dir, childPass+"="+s.rec.Password.Reveal(), fmt.Sprintf("%s=%d", childCollects, 1000*(n+1)))
		out := must(c.StdoutPipe())(t)
		must(0, c.Start())(t)
		lines := bufio.NewScanner(out)
		step := ""
		for range 6 + random.IntN(12) { // steps of a few hundred milliseconds each
			if !lines.Scan() {
				break
			}
			if step = lines.Text(); strings.HasPrefix(step, "failed") {
				t.Fatal(step)
			}
		}
		t.Logf("kill %d while %s", n, step)
		seen[step]++
		kill := time.NewTimer(time.Duration(random.IntN(60)) * time.Millisecond)
		<-kill.C // anywhere in the step
		must(0, c.Process.Kill())(t)
		if err := c.Wait(); err == nil {
			t.Fatal("the child ended by itself")
		}
		after := s.again()
		all := must(after.Images(ctx))(t)
		if len(all) == 0 || len(all) > 4 {
			t.Errorf("%d images after the kill, want 1 to 4", len(all))
		}
		for _, m := range all {
			number := must(strconv.Atoi(strings.TrimPrefix(m.Image.ID, "image-")))(t)
			compare(t, after, m.Image.Ref, numbered(number))
		}
	}
	if len(seen) < 2 {
		t.Errorf("all kills came while %v, want several steps", seen)
	}
}
