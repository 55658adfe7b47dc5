package backup

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity tells how much a finding matters.
type Severity string

// The severities, from the least on.
const (
	FindingOK      Severity = "ok"
	FindingWarning Severity = "warning" // works, but not for long, not well, or not for all
	FindingError   Severity = "error"   // something that was asked for will not work
)

// Finding is the answer of one check of the doctor's.
type Finding struct {
	Check    string // what was looked at, such as "vcenter.clock"; stable
	Severity Severity
	Seen     string   // what was found, in a sentence
	Why      string   // why it matters; "" where it is well
	Remedy   string   // what to do about it; "" where there is nothing to do
	Objects  []string // names of the VMs, hosts, datastores or repositories it is about; empty = of what was looked at as a whole
}

// Diagnosis is what the doctor says of a vcenter.
type Diagnosis struct {
	VCenterID string
	At        time.Time
	Findings  []Finding
	Sizing    Sizing
}

// Worst is the severity of the worst finding.
func (d Diagnosis) Worst() Severity {
	worst := FindingOK
	for _, f := range d.Findings {
		if f.Severity == FindingError || worst == FindingOK {
			worst = f.Severity
		}
		if worst == FindingError {
			break
		}
	}
	return worst
}

// Surveyor looks a vcenter over without changing anything in it.
type Surveyor interface {
	// Survey reads what there is. It has no error: what could not be read is in
	// the survey, and what is known of a vcenter that lets nobody in is as well.
	Survey(ctx context.Context, v VCenter) Survey
}

// Survey is a vcenter as it was found.
type Survey struct {
	Endpoint    string // host:port
	Problem     error  // why there is no session; nil = there is one, and what follows the certificate was read
	Certificate SurveyedCertificate

	InstanceUUID string
	APIVersion   string
	Product      string // its full name
	Clock        SurveyedClock
	Privileges   []PrivilegeMissing
	Hosts        []SurveyedHost
	Datastores   []SurveyedDatastore
	VMs          []SurveyedVM
	Unread       []string // sentences on what could not be looked at
}

// SurveyedCertificate is what a vcenter showed.
type SurveyedCertificate struct {
	Thumbprint string    // SHA-256; "" = none was shown
	NotAfter   time.Time // end of its validity
	Trust      string    // by what it is trusted: "pinned", "ca" or "system"; "" = it is not
}

// SurveyedClock is how far a clock is ahead of this server's.
type SurveyedClock struct {
	Read  bool
	Ahead time.Duration // below 0 = it is behind
	Give  time.Duration // the reading may be wrong by this much either way
}

// PrivilegeMissing is a privilege that the account lacks.
type PrivilegeMissing struct {
	Privilege
	Objects []string // where it lacks it, names
	Looked  int      // how many objects of that kind were looked at
}

// Privilege is a privilege of vSphere's that kura uses.
type Privilege struct {
	ID       string   // such as "VirtualMachine.State.CreateSnapshot"
	For      string   // what kura does with it, to follow "needed to"
	On       string   // kind of object that it is wanted on, such as "VirtualMachine"
	Optional bool     // only some backups or restores need it
	Parts    []string // what of kura's needs it: backup, restore
}

// SurveyedHost is an ESXi host.
type SurveyedHost struct {
	Name        string
	Address     string // host:port that the disks' streams would go to
	State       string // connected, disconnected or notResponding
	Maintenance bool
	Problem     string // why nothing answers at the address; "" = something does
	Clock       SurveyedClock
}

// SurveyedDatastore is a datastore.
type SurveyedDatastore struct {
	Name       string
	Type       string
	Capacity   int64
	Free       int64
	Accessible bool
	RemoteHost string // of a network file system
	RemotePath string
}

// SurveyedVM is a VM with what backups of it depend on.
type SurveyedVM struct {
	VirtualMachine
	Hardware          int  // version of its virtual hardware; 0 = not known
	TrackingSupported bool // of changed blocks
	TrackingOn        bool
	Snapshots         []string
	SnapshotDepth     int
	Consolidation     bool  // its disks need consolidation
	Attached          int   // disks of other VMs that hang on it for the transport hotadd
	Allocated         int64 // bytes of its disks that hold something
	Transport         Transport
	TransportWhy      string // why that one; "" = it is the only one there is
}

// findings gathers what the checks say.
type findings struct {
	all []Finding
}

func (f *findings) ok(check, format string, args ...any) {
	f.all = append(f.all, Finding{Check: check, Severity: FindingOK, Seen: fmt.Sprintf(format, args...)})
}

func (f *findings) add(one Finding) { f.all = append(f.all, one) }

// sorted puts the worst first and leaves each kind in the order of the checks.
func (f *findings) sorted() []Finding {
	rank := map[Severity]int{FindingError: 0, FindingWarning: 1, FindingOK: 2}
	all := slices.Clone(f.all)
	slices.SortStableFunc(all, func(a, b Finding) int { return rank[a.Severity] - rank[b.Severity] })
	return all
}

// named lists names for a sentence, at most ten of them.
func named(names []string) string {
	const most = 10
	if len(names) <= most {
		return list(names)
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}

// plural writes "1 VM" or "3 VMs".
func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// SizeText writes a number of bytes as people do, in units of 1,024.
func SizeText(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/1024, 0
	for v >= 1023.95 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", v, units[unit])
}
