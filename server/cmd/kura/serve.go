package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server"
)

type serveCmd struct {
	Config           string        `setting:"" as:"FILE" help:"YAML file that sets what flags and variables do not: every flag is a key, with _ for -."`
	Listen           string        `setting:"" default:"127.0.0.1:8480" help:"Host and port to answer at; port 0 takes any free one."`
	Data             string        `setting:"" as:"DIR" help:"Folder for all that is embedded: database, repository, key. It is made if it is not there."`
	KeyFile          string        `setting:"" as:"FILE" help:"The installation's key, which secrets in the database are encrypted with; default kura.key in the data folder. Without it they are lost."`
	Database         string        `setting:"" as:"sqlite:PATH|postgres://..." help:"Default: sqlite, kura.db in the data folder. Several servers share one PostgreSQL."`
	TLSCert          string        `setting:"" name:"tls-cert" as:"FILE" help:"PEM file of the certificate; with --tls-key the API speaks TLS."`
	TLSKey           string        `setting:"" name:"tls-key" as:"FILE" help:"PEM file of the certificate's key."`
	Role             string        `setting:"" enum:"all,api,mover" default:"all" as:"all|api|mover" help:"api answers and runs no jobs; mover stands near the datastores and is there to run them; all, the default, is both."`
	Reach            []string      `setting:"" as:"LABEL" help:"What this server can reach, such as vcenter:tokyo or repository:default; it takes only jobs that need no more. Default: everything."`
	RetentionProfile string        `setting:"" enum:"standard,general" default:"standard" as:"standard|general" help:"standard allows fixed retentions for each type of schedule, general any number of days and never."`
	SlotCapacity     int           `setting:"" default:"10" help:"Seats of an hour of a vcenter that sets none."`
	RecoverySheets   string        `setting:"" name:"recovery-age-recipient" as:"age1..." help:"Public age key to which recovery sheets of repositories are encrypted when the request names none."`
	MaxJobs          int           `setting:"" default:"8" help:"Jobs that this server runs at the same time."`
	ShutdownTimeout  time.Duration `setting:"" default:"10m" help:"How long a guest may take to shut down for an offline backup before its power is cut."`
	SnapshotTimeout  time.Duration `setting:"" default:"15m" help:"How long vSphere may take to make one snapshot before the job gives up."`
	CopyRate         int           `setting:"" default:"0" as:"MIB" help:"MiB per second that one copy of an image to another repository reads at most; 0 = no limit."`
	DatastoreMinFree int           `setting:"" default:"10" as:"GIB" help:"GiB of a datastore, but never more than a twentieth of it, that backups leave free: one gives up, and removes its snapshot, before it is full and the VMs on it stop. 0 = no such limit."`
	MaxLatency       time.Duration `setting:"" name:"max-datastore-latency" default:"0s" as:"DURATION" help:"Latency of a datastore, such as 30ms, above which reading pauses, for two minutes of a backup at most, and no backup begins; 0 = none."`
	NBDCommand       string        `setting:"" name:"nbd-command" as:"FILE" help:"Program that serves one disk over NBD, as docs/dev/transports.md says; it makes the transport nbd. Default: none."`
	CompareBudget    int64         `setting:"" name:"compare-bytes-per-day" default:"0" as:"BYTES" help:"Bytes a day that disks of which backups read only the changes are read in full for, from the 28th day after the last time on; at the 35th it is done whatever this says. 0 = no limit."`
	DatabaseCopies   string        `setting:"" name:"database-copies" enum:"on,off" default:"on" as:"on|off" help:"Whether a SQLite database is copied, with the key, into each repository once a day: kura catalog recover makes the server anew of it."`
	ProxyUUID        string        `setting:"" name:"proxy-uuid" as:"UUID" help:"BIOS UUID of the VM in which this server runs: the transport hotadd attaches disks to it. Default: what the machine says of itself."`
	Lease            time.Duration `setting:"" default:"60s" help:"How long other servers wait before they take the jobs of one that is silent."`
	LogLevel         string        `setting:"" enum:"debug,info,warn,error" default:"info" as:"debug|info|warn|error" help:"What is logged, to stderr."`
	LogFormat        string        `setting:"" enum:"text,json" default:"text" as:"text|json" help:"How it is logged."`
}

// Help is shown below the command's first line.
func (*serveCmd) Help() string {
	return "A flag stands above its variable, a variable above the file. The first start on an empty database makes a token for the operator and writes it to operator.token in the data folder. SIGTERM hands the running jobs over and ends.\n\n" +
		examples("kura serve --data /var/lib/kura",
			"kura serve --config /etc/kura.yaml",
			"KURA_DATABASE=postgres://kura@db/kura kura serve --data /var/lib/kura --role mover --reach vcenter:tokyo")
}

// Run is the server from start to end.
func (c *serveCmd) Run(ctx context.Context, s *session) (err error) {
	if err := c.checkSizes(); err != nil {
		return err
	}
	config := c.config(s)
	if err := config.Validate(); err != nil {
		return wrongUse(err.Error())
	}
	thrift()
	srv, err := server.New(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, srv.Close()) }()
	fmt.Fprintf(s.stdout, "kura %s listens at %s\n", version, srv.URL())
	if file := srv.OperatorTokenFile(); exists(file) {
		fmt.Fprintf(s.stdout, "The operator's token is in %s\n", file)
	}
	return srv.Run(ctx)
}

// thrift makes the collector run earlier than Go does by itself. Most of what
// a server holds are buffers that are used again, so this costs little time, and
// a backup of any size peaks at some 170 MiB rather than 280. GOGC overrules it.
func thrift() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
}

// maxUnits is more GiB or MiB than there are anywhere; in bytes they still are a number.
const maxUnits = 1 << 30

// checkSizes refuses what would be another number in bytes, and what means
// something else where it is left out.
func (c *serveCmd) checkSizes() error {
	switch {
	case c.CopyRate < 0 || c.CopyRate > maxUnits:
		return usef("copy_rate must be 0, for no limit, to %d MiB, got %d.", maxUnits, c.CopyRate)
	case c.DatastoreMinFree < 0 || c.DatastoreMinFree > maxUnits:
		return usef("datastore_min_free must be 0, for no limit, to %d GiB, got %d.", maxUnits, c.DatastoreMinFree)
	case c.MaxJobs == 0:
		return usef("max_jobs must be 1 or more, got 0. A server that is to run no jobs has the role api.")
	case c.Lease <= 0:
		return usef("lease must be more than 0, got %s.", c.Lease)
	}
	return nil
}

// minFree is the limit in bytes; below 0 where there is to be none.
func (c *serveCmd) minFree() int64 {
	if c.DatastoreMinFree <= 0 {
		return -1
	}
	return int64(c.DatastoreMinFree) << 30
}

func (c *serveCmd) config(s *session) server.Config {
	config := server.Config{
		Listen: c.Listen, Data: c.Data, KeyFile: c.KeyFile, Database: c.Database, TLSCert: c.TLSCert, TLSKey: c.TLSKey,
		Role: server.Role(c.Role), Reach: c.Reach, SlotCapacity: c.SlotCapacity, AgeRecipient: c.RecoverySheets, Slots: c.MaxJobs, Lease: c.Lease, ShutdownTimeout: c.ShutdownTimeout, SnapshotTimeout: c.SnapshotTimeout, CopyRate: int64(c.CopyRate) << 20, NBDCommand: c.NBDCommand, ProxyUUID: c.ProxyUUID, CompareBudget: c.CompareBudget, NoDatabaseCopies: c.DatabaseCopies == "off",
		DatastoreMinFree: c.minFree(), MaxLatency: c.MaxLatency,
		Version: version, Log: c.log(s), RetentionProfile: "standard", LookupEnv: os.LookupEnv,
	}
	if c.RetentionProfile == "general" {
		config.RetentionProfile = "general"
	}
	if config.Data != "" { // what is kept in the database must not depend on where the server was started
		if path, err := filepath.Abs(config.Data); err == nil {
			config.Data = path
		}
	}
	if config.Database == "" {
		config.Database = "sqlite:" + filepath.Join(config.Data, "kura.db")
	}
	return config
}

func (c *serveCmd) log(s *session) *slog.Logger {
	var o slog.HandlerOptions
	var level slog.Level
	if level.UnmarshalText([]byte(c.LogLevel)) == nil { // it is one of the flag's choices
		o.Level = level
	}
	if c.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(s.stderr, &o))
	}
	return slog.New(slog.NewTextHandler(s.stderr, &o))
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}
