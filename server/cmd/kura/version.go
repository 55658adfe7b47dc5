package main

import (
	"context"
	"fmt"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

type versionCmd struct {
	Client bool `help:"Only this program's; no server is asked."`
}

// versions is what the command prints as JSON.
type versions struct {
	Client versionPair  `json:"client"`
	Server *versionPair `json:"server,omitempty"`
}

type versionPair struct {
	Version        string `json:"version"`
	APIVersion     string `json:"api_version"`
	InstallationID string `json:"installation_id,omitempty"`
}

// Run tells the versions. What is known is told even if the server is not there.
func (v *versionCmd) Run(ctx context.Context, s *session) error {
	all := versions{Client: versionPair{Version: version, APIVersion: api.Version}}
	var failed error
	if !v.Client {
		all.Server, failed = askVersion(ctx, s)
	}
	if s.cli.Output == "json" {
		if err := s.printJSON(all); err != nil {
			return err
		}
		return failed
	}
	t := table{head: []string{"PROGRAM", "VERSION", "API", "INSTALLATION"}}
	t.rows = append(t.rows, []string{"kura", version, api.Version, ""})
	if p := all.Server; p != nil {
		t.rows = append(t.rows, []string{"server", p.Version, p.APIVersion, p.InstallationID})
	}
	if err := t.print(s.stdout); err != nil {
		return err
	}
	return failed
}

func askVersion(ctx context.Context, s *session) (*versionPair, error) {
	c, err := s.server()
	if err != nil {
		return nil, err
	}
	raw, err := body(c.GetServerWithResponse(ctx))
	if err != nil {
		return nil, err
	}
	server, err := decode[struct {
		versionPair
		OldDatabase *api.OldDatabase `json:"old_database"`
	}](raw)
	if old := server.OldDatabase; old != nil {
		fmt.Fprintln(s.stderr, "Warning: "+old.Message)
	}
	return &server.versionPair, err
}
