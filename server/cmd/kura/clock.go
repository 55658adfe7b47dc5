package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type clockCmd struct {
	Show    clockShow    `cmd:"" help:"Say whether the server's clock is trusted."`
	Confirm clockConfirm `cmd:"" help:"Say that the server's clock is right, after it has leapt."`
}

type clockShow struct{}

// Help is shown below the command's first line.
func (*clockShow) Help() string {
	return "A clock that has moved by more than a day is not trusted: no image expires, no lock opens and no space is freed until it is confirmed, or right again.\n\n" +
		examples("kura clock show")
}

// Run shows the clock.
func (*clockShow) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.GetServerWithResponse(ctx))
	if err != nil {
		return err
	}
	server, err := decode[struct {
		Clock json.RawMessage `json:"clock"`
	}](raw)
	if err != nil {
		return err
	}
	return showOne(s, server.Clock, clockRecord)
}

type clockConfirm struct{}

// Help is shown below the command's first line.
func (*clockConfirm) Help() string {
	return "The time of this machine is sent along: the server refuses a confirmation by a clock that differs from its own by more than an hour. Check both with a third one first: what has expired by that time goes within minutes.\n\n" +
		examples("kura clock confirm")
}

// Run confirms the server's clock by this machine's.
func (*clockConfirm) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.ConfirmClockWithResponse(ctx, &api.ConfirmClockParams{IdempotencyKey: newKey()}, api.ClockConfirmation{Time: s.now().UTC()}))
	if err != nil {
		return err
	}
	if s.cli.Output != "json" {
		fmt.Fprintln(s.stderr, "The clock is trusted.")
	}
	return showOne(s, raw, clockRecord)
}

func clockRecord(c api.Clock) (r record) {
	r.add("time", when(c.Time))
	r.add("trusted", yes(c.Trusted))
	if !c.Trusted {
		r.add("expected", when(c.Expected))
		r.add("held until", when(c.HeldUntil))
		r.add("warning", c.Warning)
	}
	return r
}
