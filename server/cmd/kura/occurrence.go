package main

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type scheduleOccurrences struct {
	Name  string `arg:"" help:"Name or id."`
	From  string `as:"TIME" help:"Slots after this time; default now."`
	Count *int   `as:"N" help:"How many, 1000 at most; default 10, 366 of a calendar."`
}

// Help is shown below the command's first line.
func (*scheduleOccurrences) Help() string {
	return "-o ics prints a calendar that other programs can import.\n\n" +
		examples("kura schedule occurrences nightly --count 30", "kura schedule occurrences nightly -o ics")
}

// Run lists the coming slots.
func (b *scheduleOccurrences) Run(ctx context.Context, s *session) error {
	from, err := instant("from", b.From)
	if err != nil {
		return err
	}
	n := 0 // as many as the server thinks right
	if b.Count != nil {
		if n = *b.Count; n < 1 || n > 1000 {
			return usef("--count is 1 to 1000, got %d.", n)
		}
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(scheduleNoun(ctx, c), b.Name)
	if err != nil {
		return err
	}
	if s.cli.Output == "ics" {
		text, err := body(c.ExportOccurrencesWithResponse(ctx, o.ID, &api.ExportOccurrencesParams{From: from, Count: n}))
		if err != nil {
			return err
		}
		_, err = s.stdout.Write(text)
		return err
	}
	items, err := collect(0, func(string) (answer, error) {
		return c.ListOccurrencesWithResponse(ctx, o.ID, &api.ListOccurrencesParams{From: from, Count: n})
	})
	if err != nil {
		return err
	}
	head := []string{"STARTS AT", "LOCAL TIME", "LOCAL SLOT"}
	noted := slices.ContainsFunc(items, func(raw json.RawMessage) bool {
		o, err := decode[api.Occurrence](raw)
		return err == nil && o.Note != ""
	})
	if noted {
		head = append(head, "NOTE")
	}
	return showAll(s, "coming slots", items, head, func(o api.Occurrence) []string {
		t := o.StartsAt
		return []string{when(t), slotName(t), slot(t), o.Note}[:len(head)]
	})
}

// slot names the hour that a slot is: 02-03, the last one 23-24.
func slot(t time.Time) string { return fmt.Sprintf("%02d-%02d", t.Hour(), t.Hour()+1) }
