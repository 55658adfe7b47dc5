// Package api is the contract between kura's server and everything that talks
// to it: openapi.yaml, the types and the client generated from it, and a client
// that retries. It holds no rules and knows no other room.
//
//	c, err := api.New(api.Config{Endpoint: "https://kura.example.com", Token: token})
//	a, err := c.GetBackupGroupWithResponse(ctx, id)
//	if err := api.Err(a, err); err != nil { ... } // *api.Problem when the server refused
//	a.JSON200.Name
package api

import _ "embed"

// Spec is the contract's text, as the server shows it.
//
//go:embed openapi.yaml
var Spec []byte

// Version is the version of the contract; servers tell theirs as api_version.
const Version = "1.0"
