package main

import (
	"os"
	"strings"

	"github.com/kura-backup/terraform-provider-kura/server"
)

// writeRole writes the role that an account needs at the least.
func (s *session) writeRole(path string) error {
	text := server.VSphereRoleScript()
	if strings.HasSuffix(path, ".json") || path == "-" && s.cli.Output == "json" {
		text = server.VSphereRoleJSON()
	}
	if path == "-" {
		_, err := s.stdout.Write(text)
		return err
	}
	// Somebody else's file of that name is not written over.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) //nolint:gosec // the role is no secret
	if err != nil {
		return failf("The role cannot be written: %v.", err)
	}
	if _, err := f.Write(text); err != nil {
		_ = f.Close()
		return failf("The role cannot be written: %v.", err)
	}
	if err := f.Close(); err != nil {
		return failf("The role cannot be written: %v.", err)
	}
	s.say("Wrote the role to %s.", path)
	return nil
}
