package backup

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// RepositoryGauge measures repositories.
type RepositoryGauge interface {
	// Gauge writes an object of that size beside the repository's, reads it back
	// and takes it away again, whatever happens in between. Size 0 measures
	// nothing. Errors: RepositoryUnreachable, NoSpace.
	Gauge(ctx context.Context, r RepositoryRecord, size int64) (Gauged, error)
}

// Gauged is a repository as it was measured.
type Gauged struct {
	Bytes int64         // that were written and read
	Write time.Duration // until they were safe
	Read  time.Duration
	Free  int64 // -1 = not known
	Lies  StoragePlace
}

// StoragePlace tells on what a repository's storage lies.
type StoragePlace struct {
	Host       string   // that keeps it; "" = this machine does
	Addresses  []string // of the host
	RemotePath string   // there, where it is a mounted network file system
}

// gaugeSize is what is written to a repository to measure it.
const gaugeSize = 64 << 20

// slowRepository is the rate below which a repository holds backups up.
const slowRepository = 20 << 20

// examineRepository judges one repository. free is -1 where it is not known.
func (f *findings) examineRepository(r RepositoryRecord, u Upkeep, g Gauged, problem error) {
	of := []string{r.Name}
	if problem != nil {
		f.add(Finding{Check: "repository.reachable", Severity: FindingError, Objects: of, Seen: fmt.Sprintf("Repository %s cannot be written and read: %s", r.Name, because(problem)),
			Why: "Backups to it fail.", Remedy: "See to its storage: kura repository show " + strconv.Quote(r.Name) + "."})
		return
	}
	if g.Bytes > 0 {
		f.speed(r, g)
	}
	switch {
	case g.Free < 0:
	case r.StoredBytes > 0 && g.Free < r.StoredBytes/20:
		f.add(Finding{Check: "repository.space", Severity: FindingWarning, Objects: of, Seen: fmt.Sprintf("Repository %s has %s free and holds %s.", r.Name, SizeText(g.Free), SizeText(r.StoredBytes)),
			Why: "A full storage fails every backup, and what is deleted comes back only with the collections of the days after.", Remedy: "Add space, or keep images for a shorter time."})
	default:
		f.ok("repository.space", "Repository %s has %s free.", r.Name, SizeText(g.Free))
	}
	if r.SheetAt.IsZero() {
		f.add(Finding{Check: "repository.sheet", Severity: FindingWarning, Objects: of, Seen: fmt.Sprintf("No recovery sheet of repository %s was given out that is right now.", r.Name),
			Why: "With the server's database lost, nobody can open the images without it.", Remedy: "Keep one in a safe place: kura repository recovery-sheet " + strconv.Quote(r.Name) + "."})
	} else {
		f.ok("repository.sheet", "The recovery sheet of repository %s was given out on %s.", r.Name, r.SheetAt.UTC().Format(time.DateOnly))
	}
	if u.Collected.IndexBlobs > MaxIndexBlobs {
		f.add(Finding{Check: "repository.index", Severity: FindingWarning, Objects: of, Seen: fmt.Sprintf("Repository %s has %d index blobs.", r.Name, u.Collected.IndexBlobs),
			Why: fmt.Sprintf("More than %d make it slow.", MaxIndexBlobs), Remedy: "Have it maintained: kura repository maintain " + strconv.Quote(r.Name) + "."})
	}
}

func (f *findings) speed(r RepositoryRecord, g Gauged) {
	write, read := float64(g.Bytes)/max(g.Write.Seconds(), 1e-6), float64(g.Bytes)/max(g.Read.Seconds(), 1e-6)
	seen := fmt.Sprintf("Repository %s takes %s/s and gives %s/s (%s written and read once).", r.Name, SizeText(int64(write)), SizeText(int64(read)), SizeText(g.Bytes))
	if write >= slowRepository && read >= slowRepository {
		f.ok("repository.speed", "%s", seen)
		return
	}
	f.add(Finding{Check: "repository.speed", Severity: FindingWarning, Objects: []string{r.Name}, Seen: seen,
		Why: fmt.Sprintf("Below %s/s it is the repository that first images and restores wait for.", SizeText(slowRepository)), Remedy: "See to the network and the storage between this server and the repository, or put a server beside it."})
}

// because is what a user is told of an error.
func because(err error) string {
	if e := AsError(err); e != nil {
		return e.Message
	}
	return "see the server's log."
}

// examinePlace finds a repository that would be lost with the VMs that it
// protects. machine is this machine's SMBIOS UUID, "" where that is not known.
func (f *findings) examinePlace(r RepositoryRecord, lies StoragePlace, s Survey, machine string) {
	on, how := storageUnder(lies, s, machine)
	if len(on) == 0 {
		return
	}
	var lost []string
	for _, vm := range s.VMs {
		if slices.ContainsFunc(vm.Datastores, func(d string) bool { return slices.Contains(on, d) }) {
			lost = append(lost, vm.Name)
		}
	}
	if len(lost) == 0 {
		return
	}
	f.add(Finding{Check: "repository.place", Severity: FindingError, Objects: []string{r.Name},
		Seen:   fmt.Sprintf("Repository %s lies on %s (%s), beside what it protects: %s.", r.Name, named(quoted("datastore", on)), how, named(lost)),
		Why:    "Whoever loses the datastore loses the VMs and their images at once.",
		Remedy: "Keep the repository, or a copy of its images, on a storage of its own."})
}

func quoted(what string, names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = what + " " + strconv.Quote(n)
	}
	return out
}

// storageUnder are the datastores of the vcenter that a repository lies on, as
// far as that can be told, and how it was told.
func storageUnder(lies StoragePlace, s Survey, machine string) (datastores []string, how string) {
	is := func(host string) bool {
		return host != "" && (host == lies.Host || slices.Contains(lies.Addresses, host))
	}
	for _, d := range s.Datastores {
		if lies.RemotePath != "" && is(d.RemoteHost) && within(lies.RemotePath, d.RemotePath) {
			return []string{d.Name}, fmt.Sprintf("both are at %s:%s", d.RemoteHost, d.RemotePath)
		}
	}
	for _, vm := range s.VMs {
		if lies.Host == "" && sameMachine(vm.BIOSUUID, machine) {
			return vm.Datastores, fmt.Sprintf("this server runs in the VM %s", vm.Name)
		}
		for _, n := range vm.NICs {
			if lies.Host != "" && slices.ContainsFunc(n.IPs, is) {
				return vm.Datastores, fmt.Sprintf("%s is the VM %s", lies.Host, vm.Name)
			}
		}
	}
	return nil, ""
}

// sameMachine compares SMBIOS UUIDs. A guest may read the first three parts of
// its own with their bytes the other way round.
func sameMachine(a, b string) bool {
	a, b = strings.ToLower(a), strings.ToLower(b)
	return a != "" && (a == b || a == swapped(b))
}

func swapped(uuid string) string {
	parts := strings.Split(uuid, "-")
	for i := range min(3, len(parts)) {
		turned := ""
		for n := len(parts[i]); n >= 2; n -= 2 {
			turned += parts[i][n-2 : n]
		}
		parts[i] = turned
	}
	return strings.Join(parts, "-")
}

// within says whether path is folder or lies below it.
func within(path, folder string) bool {
	path, folder = strings.Trim(path, "/"), strings.Trim(folder, "/")
	return path == folder || strings.HasPrefix(path, folder+"/")
}
