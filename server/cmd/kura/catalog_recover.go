package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type catalogCopy struct {
	Name string `arg:"" help:"Name or id of the repository."`
}

// Help is shown below the command's first line.
func (*catalogCopy) Help() string {
	return "The server does this by itself once a day; do it before an upgrade. The repository keeps the last seven copies, encrypted as all that it holds.\n\n" + examples("kura catalog copy offsite")
}

// Run copies the database.
func (c *catalogCopy) Run(ctx context.Context, s *session) error {
	client, o, err := s.repository(ctx, c.Name)
	if err != nil {
		return err
	}
	raw, err := body(client.CopyDatabaseWithResponse(ctx, o.ID, &api.CopyDatabaseParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return showOne(s, raw, repositoryRecord)
}

type catalogRecover struct {
	Sheet string `required:"" as:"FILE" help:"The repository's recovery sheet, decrypted; - reads it from the standard input."`
	Data  string `required:"" as:"DIR" help:"The data folder to make."`
	Copy  string `as:"TIME" help:"Take the newest copy up to then. Default: the newest."`
}

// Help is shown below the command's first line.
func (*catalogRecover) Help() string {
	return "No server is asked: this reads the repository itself. What comes back is the database as it was at the copy, with the key that its secrets are encrypted with, and a new token. " +
		"A server that starts on it begins nothing until kura catalog adopt, which lists the images that were made since.\n\n" +
		examples("kura catalog recover --sheet sheet.txt --data /var/lib/kura", "age --decrypt --identity key.txt sheet.age | kura catalog recover --sheet - --data /var/lib/kura")
}

// Run makes the data folder.
func (c *catalogRecover) Run(ctx context.Context, s *session) error {
	before, err := instant("copy", c.Copy)
	if err != nil {
		return err
	}
	sheet, err := s.readFile(c.Sheet)
	if err != nil {
		return err
	}
	done, err := server.Recover(ctx, server.Recovery{Sheet: string(sheet), Data: c.Data, Before: before, LookupEnv: os.LookupEnv})
	if err != nil {
		return err
	}
	if s.cli.Output == "json" {
		return s.printJSON(map[string]any{"copied_at": done.At, "token_file": done.TokenFile, "other_copies": done.Others})
	}
	fmt.Fprintf(s.stdout, "The database of %s is in %s, with its key. A new operator's token is in %s\n", done.At.UTC().Format(time.DateTime+" UTC"), c.Data, done.TokenFile)
	s.say("Now: kura serve --data %s, then: kura catalog adopt --yes --token-file %s", c.Data, done.TokenFile)
	return nil
}
