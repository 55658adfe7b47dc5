package main

import (
	"context"
	"os"
	"strconv"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type repositoryCmd struct {
	List     repositoryList     `cmd:"" help:"List the repositories."`
	Show     repositoryShow     `cmd:"" help:"Show a repository."`
	Create   repositoryCreate   `cmd:"" help:"Make a repository, or attach one that is there."`
	Update   repositoryUpdate   `cmd:"" help:"Change a repository: its name, its settings, what is the default."`
	Delete   repositoryDelete   `cmd:"" help:"Forget a repository; what it holds stays where it is."`
	Takeover repositoryTakeover `cmd:"" help:"Make this installation the one that writes to a repository."`
	Maintain repositoryMaintain `cmd:"" help:"Free what no image needs, now."`

	ChangePassword repositoryChangePassword `cmd:"" help:"Give a repository a new random password."`
	RecoverySheet  repositoryRecoverySheet  `cmd:"" help:"Write down what opens a repository without the server: its password and the keys of its storage."`
}

func repositoryNoun(ctx context.Context, c *api.ClientWithResponses) noun {
	return noun{
		what: "repository",
		get:  func(id string) (answer, error) { return c.GetRepositoryWithResponse(ctx, id) },
		list: func(name, cursor string) (answer, error) {
			return c.ListRepositoriesWithResponse(ctx, &api.ListRepositoriesParams{Name: name, Limit: pageSize, Cursor: cursor})
		},
		hint: "kura repository list shows all.",
	}
}

// repository finds the repository that a command is about.
func (s *session) repository(ctx context.Context, ref string) (*api.ClientWithResponses, object, error) {
	c, err := s.server()
	if err != nil {
		return nil, object{}, err
	}
	o, err := find(repositoryNoun(ctx, c), ref)
	return c, o, err
}

type repositoryList struct{}

// Run lists the repositories.
func (*repositoryList) Run(ctx context.Context, s *session) error {
	c, err := s.server()
	if err != nil {
		return err
	}
	items, err := collect(0, func(cursor string) (answer, error) { return repositoryNoun(ctx, c).list("", cursor) })
	if err != nil {
		return err
	}
	return showAll(s, "repositories", items, []string{"NAME", "KIND", "DEFAULT", "IMAGES", "STORED", "FREE", "CHECKED", "SHEET", "WARNINGS", "ID"}, func(r api.Repository) []string {
		return []string{r.Name, r.Kind, yes(r.Default), strconv.Itoa(r.ImageCount), size(r.StoredBytes), free(r), when(r.CheckedAt), when(r.RecoverySheetAt), strconv.Itoa(len(r.Warnings)), r.ID}
	})
}

func free(r api.Repository) string {
	if r.FreeBytes == nil {
		return "not known"
	}
	return size(*r.FreeBytes)
}

type repositoryShow struct {
	Name string `arg:"" help:"Name or id."`
}

// Run shows a repository.
func (r *repositoryShow) Run(ctx context.Context, s *session) error {
	_, o, err := s.repository(ctx, r.Name)
	if err != nil {
		return err
	}
	return showOne(s, o.raw, repositoryRecord)
}

func repositoryRecord(v api.Repository) (r record) {
	r.add("name", v.Name)
	r.add("id", v.ID)
	r.add("kind", v.Kind)
	for _, k := range keys(v.Settings) {
		r.add(k, v.Settings[k])
	}
	r.add("default", yes(v.Default))
	r.add("compression", v.Compression)
	r.add("images", strconv.Itoa(v.ImageCount))
	r.add("stored", size(v.StoredBytes))
	r.add("free", free(v))
	r.add("read only", yes(v.ReadOnly))
	r.add("owned by", v.OwnedBy)
	r.add("verified every", count(v.VerifyDays, "day"))
	r.add("checked", when(v.CheckedAt))
	r.add("error", v.CheckError)
	r.add("recovery sheet", when(v.RecoverySheetAt))
	r.add("database copied", when(v.DatabaseCopiedAt))
	r.add("created", when(v.CreatedAt))
	for _, w := range v.Warnings {
		r.add("warning", w)
	}
	return r
}

type repositoryCreate struct {
	Name         string            `arg:"" help:"Name for it."`
	Kind         string            `enum:"filesystem,s3,sftp,webdav" as:"filesystem|s3|sftp|webdav" default:"filesystem" help:"Where it lies: in a folder of the server, in a bucket, or on an SSH or a WebDAV server."`
	Set          map[string]string `as:"NAME=VALUE" mapsep:"none" help:"A setting; NAME=@FILE takes it from a file. May be repeated."`
	PasswordFile string            `as:"FILE" help:"Attach a repository that is there, with the password in this file."`
	Compression  string            `enum:",s2,zstd-fastest,none" as:"s2|zstd-fastest|none" default:"" help:"How blocks are packed. Default: s2."`
	ReadOnly     bool              `help:"Attach it for reading alone."`
}

// Help is shown below the command's first line.
func (*repositoryCreate) Help() string {
	return examples("kura repository create nas --set path=/mnt/nas/kura",
		"kura repository create offsite --kind s3 --set endpoint=s3.example.com --set bucket=images --set access_key_id=env:AWS_ACCESS_KEY_ID --set secret_access_key=env:AWS_SECRET_ACCESS_KEY",
		"kura repository create vault --kind sftp --set host=vault.example.com --set user=kura --set path=/srv/kura --set private_key=@key --set known_hosts=@known_hosts")
}

// Run makes or attaches a repository.
func (r *repositoryCreate) Run(ctx context.Context, s *session) error {
	wanted := api.Repository{Name: r.Name, Kind: r.Kind, Settings: map[string]string{}, Compression: r.Compression, ReadOnly: r.ReadOnly}
	if err := readSettings(r.Set, wanted.Settings); err != nil {
		return err
	}
	if r.PasswordFile != "" {
		b, err := os.ReadFile(r.PasswordFile)
		if err != nil {
			return usef("The password cannot be read from %s: %v.", r.PasswordFile, err)
		}
		wanted.Password = strings.TrimRight(string(b), "\r\n")
	}
	c, err := s.server()
	if err != nil {
		return err
	}
	raw, err := body(c.CreateRepositoryWithResponse(ctx, &api.CreateRepositoryParams{}, wanted))
	if err != nil {
		return err
	}
	return showOne(s, raw, repositoryRecord)
}

// readSettings puts settings that the command line names among the others; one
// that begins with @ is taken from that file.
func readSettings(named, settings map[string]string) error {
	for _, name := range keys(named) {
		text := named[name]
		if path, ok := strings.CutPrefix(text, "@"); ok {
			b, err := os.ReadFile(path)
			if err != nil {
				return usef("The setting %s cannot be read from %s: %v.", name, path, err)
			}
			text = string(b)
		}
		settings[name] = text
	}
	return nil
}
