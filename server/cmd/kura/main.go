// Command kura is the server (kura serve) and the command line that speaks to
// one over its API. It holds no rules: what is right and what is refused, the
// server says.
//
// Exit status: 0 done, 1 refused or failed, 2 wrong use, 3 server not reachable.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

var version = "dev" // set by the linker

// cli is the whole command line. Fields with the tag "setting" are variables of
// the environment and, below serve, keys of the configuration file too; the tag
// "as" names a flag's value in the help.
type cli struct {
	Endpoint      string `setting:"" default:"http://127.0.0.1:8480" group:"connection" help:"Where the server answers."`
	Token         string `setting:"" as:"TEXT" xor:"token" group:"connection" help:"Token to call with. The variable keeps it out of the list of processes."`
	TokenFile     string `setting:"" as:"FILE" xor:"token" group:"connection" help:"File that holds the token."`
	CACertificate string `setting:"" name:"ca-certificate" as:"FILE" group:"connection" help:"PEM file of the authority that signed the server's certificate."`
	Output        string `short:"o" enum:"table,json,ics,csv" default:"table" as:"table|json|ics|csv" group:"connection" help:"table is for people, json for programs: the object as the server tells it, or {\"items\": [...]}. ics is a calendar, of kura schedule occurrences only; csv is a table for spreadsheets, of kura usage only."`

	Serve      serveCmd      `cmd:"" help:"Run the server."`
	VCenter    vcenterCmd    `cmd:"" name:"vcenter" help:"The vSphere endpoints that are protected."`
	VM         vmCmd         `cmd:"" name:"vm" help:"Virtual machines of the inventory."`
	Group      groupCmd      `cmd:"" help:"Named sets of virtual machines."`
	Schedule   scheduleCmd   `cmd:"" help:"When and how a VM or a group is backed up."`
	Timeslots  timeslotsCmd  `cmd:"" help:"Show how full the coming hours of a vcenter are."`
	Run        runCmd        `cmd:"" help:"Occurrences of schedules and runs by hand."`
	Job        jobCmd        `cmd:"" help:"Pieces of work, each for one VM."`
	Image      imageCmd      `cmd:"" help:"VMs as they were at one instant."`
	Restore    restoreCmd    `cmd:"" help:"Images put back."`
	Repository repositoryCmd `cmd:"" help:"Where images are kept."`
	Catalog    catalogCmd    `cmd:"" help:"What the server knows of images."`
	Usage      usageCmd      `cmd:"" help:"Tell how long images were there and how large they are, for charging."`
	Clock      clockCmd      `cmd:"" help:"The server's clock, which decides when images end."`
	Doctor     doctorCmd     `cmd:"" help:"Say what will not work, why it matters and what to do."`
	Tokens     tokenCmd      `cmd:"" name:"token" help:"Who may call the server."`
	Version    versionCmd    `cmd:"" help:"Tell the versions of this program and of the server."`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Getenv))
}

// run is the whole program; it returns the exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, getenv func(string) string) int {
	s := &session{stdin: stdin, stdout: stdout, stderr: stderr, now: time.Now, poll: time.Second, patience: 2 * time.Minute, colour: wantsColour(stdout, getenv)}
	return s.run(ctx, args, getenv)
}

func (s *session) run(ctx context.Context, args []string, getenv func(string) string) int {
	s.cli = new(cli)
	helped := false
	parser, err := newParser(ctx, s, getenv, func(int) { helped = true })
	if err != nil {
		fmt.Fprintf(s.stderr, "kura: %v\n", err)
		return statusFailed
	}
	command, err := parser.Parse(args)
	if helped {
		return statusDone
	}
	if err == nil {
		err = s.checkOutput(command)
	}
	if err == nil {
		err = command.Run()
	}
	if err == nil {
		return statusDone
	}
	report(s.stderr, err)
	return status(ctx, err)
}

// checkOutput refuses a form that the command does not have.
func (s *session) checkOutput(command *kong.Context) error {
	target := command.Selected().Target.Addr().Interface()
	_, calendar := target.(*scheduleOccurrences)
	_, sheet := target.(*usageCmd)
	switch {
	case s.cli.Output == "ics" && !calendar:
		return usef("-o ics is for kura schedule occurrences only; this command has table and json.")
	case s.cli.Output == "csv" && !sheet:
		return usef("-o csv is for kura usage only; this command has table and json.")
	}
	return nil
}

// newParser knows the command line. The help flag calls helped and lets the
// parser go on.
func newParser(ctx context.Context, s *session, getenv func(string) string, helped func(int)) (*kong.Kong, error) {
	return kong.New(s.cli,
		kong.Name("kura"),
		kong.Description("Kura keeps whole-VM images of VMware vSphere virtual machines, as code. These commands run a server or speak to one. A name or an id names an object. Exit status: 0 done, 1 refused or failed, 2 wrong use, 3 server not reachable."),
		kong.Writers(s.stdout, s.stderr),
		kong.Exit(helped),
		kong.Groups{"connection": "Connection and output:", "in place": "With --in-place:", "new": "With --new-vm:"},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, NoExpandSubcommands: true, WrapUpperBound: 100}),
		kong.ValueFormatter(withVariable),
		kong.PostBuild(nameValues),
		kong.Help(help),
		kong.Resolvers(&settings{getenv: getenv}),
		kong.BindTo(ctx, (*context.Context)(nil)),
		kong.Bind(s),
	)
}

// help prints the help of a command. The server's own has no use for the flags
// of the connection to one.
func help(o kong.HelpOptions, ctx *kong.Context) error {
	if selected := ctx.Selected(); selected != nil && selected.Name == "serve" {
		for _, f := range ctx.Model.Flags {
			f.Hidden = f.Group != nil
		}
	}
	return kong.DefaultHelpPrinter(o, ctx)
}

// examples is the second half of a command's help.
func examples(lines ...string) string {
	return "Examples:\n\n    " + strings.Join(lines, "\n    ")
}
