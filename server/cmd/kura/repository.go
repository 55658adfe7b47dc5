package main

import (
	"context"
	"strconv"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type repositoryCmd struct {
	List repositoryList `cmd:"" help:"List the repositories."`
	Show repositoryShow `cmd:"" help:"Show a repository."`
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
	return showAll(s, "repositories", items, []string{"NAME", "KIND", "DEFAULT", "IMAGES", "STORED", "FREE", "CHECKED", "ID"}, func(r api.Repository) []string {
		return []string{r.Name, r.Kind, yes(r.Default), strconv.Itoa(r.ImageCount), size(r.StoredBytes), free(r), when(r.CheckedAt), r.ID}
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
	c, err := s.server()
	if err != nil {
		return err
	}
	o, err := find(repositoryNoun(ctx, c), r.Name)
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
	r.add("created", when(v.CreatedAt))
	return r
}
