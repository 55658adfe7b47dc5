package main

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type repositoryUpdate struct {
	Name        string            `arg:"" help:"Name or id."`
	Rename      string            `as:"NAME" help:"New name."`
	Set         map[string]string `as:"NAME=VALUE" mapsep:"none" help:"A setting; NAME=@FILE takes it from a file. The others stay. May be repeated."`
	Unset       []string          `as:"NAME" help:"A setting to leave out. May be repeated."`
	Compression string            `enum:",s2,zstd-fastest,none" as:"s2|zstd-fastest|none" default:"" help:"How blocks are packed from now on."`
	VerifyDays  *int              `as:"DAYS" help:"Each image is read whole within so many days."`
	Default     bool              `help:"Schedules that name no repository take this one."`
	ReadOnly    *bool             `negatable:"" help:"Read it alone, or, with --no-read-only, write to it as well."`
}

// Help is shown below the command's first line.
func (*repositoryUpdate) Help() string {
	return "New settings are tried first: the same repository must lie there. A lock that is made shorter unlocks nothing that is locked.\n\n" +
		examples("kura repository update nas --set path=/mnt/new-nas/kura", "kura repository update offsite --set lock_mode=compliance --set lock_days=60",
			"kura repository update nas --default --verify-days 14")
}

// Run changes a repository. What it was is read first, and the change refused
// if it is not that any more.
func (r *repositoryUpdate) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	got, err := c.GetRepositoryWithResponse(ctx, o.ID)
	raw, err := body(got, err)
	if err != nil {
		return err
	}
	present, err := decode[api.Repository](raw)
	if err != nil {
		return err
	}
	change := api.RepositoryChange{VerifyDays: r.VerifyDays, ReadOnly: r.ReadOnly}
	if r.Rename != "" {
		change.Name = &r.Rename
	}
	if r.Compression != "" {
		change.Compression = &r.Compression
	}
	if r.Default {
		change.Default = &r.Default
	}
	if len(r.Set)+len(r.Unset) > 0 {
		change.Settings = present.Settings
		for _, name := range r.Unset {
			delete(change.Settings, name)
		}
		if err := readSettings(r.Set, change.Settings); err != nil {
			return err
		}
	}
	raw, err = body(c.UpdateRepositoryWithResponse(ctx, o.ID, &api.UpdateRepositoryParams{IfMatch: got.HTTPResponse.Header.Get("ETag")}, change))
	if err != nil {
		return err
	}
	return showOne(s, raw, repositoryRecord)
}

type repositoryDelete struct {
	Name         string `arg:"" help:"Name or id."`
	ForgetImages bool   `help:"Take its images out of the catalogue as well. Attached again, with the password of its recovery sheet, it has them still."`
	Yes          bool   `help:"Do it: without a recovery sheet nobody opens the repository any more."`
}

// Help is shown below the command's first line.
func (*repositoryDelete) Help() string {
	return "Nothing in the storage is touched. A repository that schedules, images or running jobs need is kept.\n\n" +
		examples("kura repository delete nas --yes", "kura repository delete nas --forget-images --yes")
}

// Run forgets a repository.
func (r *repositoryDelete) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	if !r.Yes {
		return usef("The password of %s is forgotten with it: only a recovery sheet opens it then. Keep one with kura repository recovery-sheet, then say --yes.", r.Name)
	}
	if _, err := body(c.DeleteRepositoryWithResponse(ctx, o.ID, &api.DeleteRepositoryParams{ForgetImages: r.ForgetImages})); err != nil {
		return err
	}
	fmt.Fprintf(s.stderr, "The repository %s is forgotten; what it holds stays where it is.\n", r.Name)
	return nil
}

type repositoryChangePassword struct {
	Name string `arg:"" help:"Name or id."`
}

// Help is shown below the command's first line.
func (*repositoryChangePassword) Help() string {
	return "Running backups and other servers go on. Recovery sheets of before open the repository no more: keep a new one, from kura repository recovery-sheet.\n\n" +
		examples("kura repository change-password nas")
}

// Run changes a repository's password.
func (r *repositoryChangePassword) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.ChangeRepositoryPasswordWithResponse(ctx, o.ID, &api.ChangeRepositoryPasswordParams{IdempotencyKey: newKey()}))
	if err != nil {
		return err
	}
	return showOne(s, raw, repositoryRecord)
}

type repositoryTakeover struct {
	Name string `arg:"" help:"Name or id."`
	Yes  bool   `help:"Do it: the installation that owns it now can only read it from then on."`
}

// Run takes a repository over.
func (r *repositoryTakeover) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	if !r.Yes {
		return usef("The installation that owns %s now can only read it afterwards. Say --yes to take it over.", r.Name)
	}
	raw, err := body(c.TakeOverRepositoryWithResponse(ctx, o.ID, &api.TakeOverRepositoryParams{}))
	if err != nil {
		return err
	}
	return showOne(s, raw, repositoryRecord)
}

type repositoryRecoverySheet struct {
	Name         string `arg:"" help:"Name or id."`
	AgeRecipient string `as:"age1..." help:"Public age key to which the sheet is encrypted. Default: it is readable."`
}

// Help is shown below the command's first line.
func (*repositoryRecoverySheet) Help() string {
	return examples("kura repository recovery-sheet default --age-recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p")
}

// Run writes the sheet to the standard output, as it is.
func (r *repositoryRecoverySheet) Run(ctx context.Context, s *session) error {
	c, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	raw, err := body(c.RecoverySheetWithResponse(ctx, o.ID, api.RecoverySheet{AgeRecipient: r.AgeRecipient}))
	if err != nil {
		return err
	}
	sheet, err := decode[api.RecoverySheet](raw)
	if err != nil {
		return err
	}
	if s.cli.Output == "json" {
		return s.printJSON(raw)
	}
	fmt.Fprint(s.stdout, sheet.Text)
	fmt.Fprintln(s.stderr, "Whoever reads this sheet can read every image: keep it where secrets are kept, away from the server and the storage.")
	return nil
}
