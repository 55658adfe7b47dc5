package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// keep leaves everything running until the user ends it.
func (t *tour) keep(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := t.ready()
	if err != nil {
		return err
	}
	fmt.Fprintf(t.out, "\nStill running; end it with Ctrl-C.\n  export KURA_ENDPOINT=%s KURA_TOKEN=%s\n  lab control %s\n  terraform in %s\n", r.Endpoint, r.Token, r.Control, t.work)
	<-ctx.Done()
	return nil
}
