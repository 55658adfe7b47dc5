// Command kura-demo shows kura without a vCenter: it joins a server with the
// simulated vCenter of the lab in one process, or runs the lab alone. It is for
// trying out, and ships with no release.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "dev"

type cli struct {
	Up    upCmd    `cmd:"" default:"withargs" help:"A lab and a server with something in them, until Ctrl-C."`
	Tour  tourCmd  `cmd:"" help:"Walk the main job with terraform and kura, and compare every byte. make demo runs it."`
	Lab   labCmd   `cmd:"" help:"Simulated vCenters alone, with a control to write to their disks and to make things fail."`
	Prove proveCmd `cmd:"" help:"Measure the main job in full size, with kills. make prove-main-job runs it."`

	Version kong.VersionFlag `help:"Print the version."`
}

func main() {
	log.SetOutput(io.Discard) // the simulator tells of its own doings there
	var c cli
	k := kong.Parse(&c, kong.Name("kura-demo"), kong.Description("Kura with a simulated vCenter."), kong.UsageOnError(),
		kong.Vars{"version": version}, kong.BindTo(context.Background(), (*context.Context)(nil)), kong.BindTo(io.Writer(os.Stdout), (*io.Writer)(nil)))
	if err := k.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "kura-demo:", err)
		os.Exit(1)
	}
}
