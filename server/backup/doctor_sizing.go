package backup

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"time"
)

// Sizing predicts a night: how long each VM's backup reads, how long all take
// together, and what does not fit.
type Sizing struct {
	Window    time.Duration // that the night should fit in
	LeaseCap  time.Duration // a lease should be no longer
	Rate      int64         // bytes per second that VMs without a history are reckoned with
	Measured  int           // VMs whose rate is their own
	Rows      []SizingRow   // longest first
	Scheduled int           // VMs that enabled schedules cover; 0 = the night is that of all VMs
	Read      int64         // bytes of the night
	Night     time.Duration // from its first backup to its last, within the limits
}

// SizingRow predicts one VM.
type SizingRow struct {
	VMID        string
	MOID        string
	Name        string
	Transport   Transport
	Provisioned int64
	Read        int64         // bytes that one backup reads
	Rate        int64         // bytes per second
	Measured    bool          // by its own backups; else reckoned
	Takes       time.Duration // of one backup
	Lease       time.Duration // for so long a lease keeps vSphere from moving it; 0 = there is none
	Scheduled   bool
	Booked      time.Duration // hours that its schedules book at the most; 0 = none
	Misfit      string        // what does not fit; "" = it fits

	job VirtualMachine
}

// What is reckoned with where nothing was measured or said.
const (
	assumedRate   = 80 << 20 // bytes per second of one VM over one stream
	defaultWindow = 8 * time.Hour
	leaseCap      = 4 * time.Hour
	defaultSlots  = 8 // jobs of a server at a time
	// tellingRead is what a backup must have read for its rate to say something of
	// other VMs: in less, it is the snapshot that takes the time.
	tellingRead = 256 << 20
)

// pace is what backups of a VM were seen to do.
type pace struct {
	read  int64
	takes time.Duration
}

// paceOf is the median of the VM's last backups; false when there is none to
// tell from.
func paceOf(images []Image) (pace, bool) {
	var all []pace
	for _, i := range images {
		if d := i.EndedAt.Sub(i.StartedAt); d > 0 && i.Sizes.Read > 0 {
			all = append(all, pace{i.Sizes.Read, d})
		}
	}
	if len(all) == 0 {
		return pace{}, false
	}
	slices.SortFunc(all, func(a, b pace) int { return cmp.Compare(a.takes, b.takes) })
	return all[len(all)/2], true
}

func (p pace) rate() int64 { return max(1, int64(float64(p.read)/p.takes.Seconds())) }

// sizingInput is what a sizing is made of.
type sizingInput struct {
	vcenter VCenter
	vms     []SurveyedVM
	history map[string][]Image       // by VM id
	ids     map[string]string        // VM ids by moid
	booked  map[string]time.Duration // by VM id, of those that schedules cover
	window  time.Duration
	rate    int64 // 0 = that of the history, else assumedRate
	slots   int
}

// size predicts the night of a vcenter.
func size(in sizingInput) Sizing {
	s := Sizing{Window: cmp.Or(in.window, defaultWindow), LeaseCap: leaseCap, Rate: in.rate}
	paces := map[string]pace{}
	var rates []int64
	for id, images := range in.history {
		p, ok := paceOf(images)
		if !ok {
			continue
		}
		paces[id] = p
		if p.read >= tellingRead {
			rates = append(rates, p.rate())
		}
	}
	if s.Rate == 0 && len(rates) > 0 {
		slices.Sort(rates)
		s.Rate = rates[len(rates)/2]
	}
	s.Rate = cmp.Or(s.Rate, assumedRate)
	for _, vm := range in.vms {
		if vm.Template || noDiskFit(vm.VirtualMachine) || len(vm.Disks) == 0 {
			continue
		}
		r := sizeOne(in, s, vm, paces)
		if r.Measured {
			s.Measured++
		}
		if r.Scheduled {
			s.Scheduled++
		}
		s.Rows = append(s.Rows, r)
	}
	slices.SortStableFunc(s.Rows, func(a, b SizingRow) int { return cmp.Compare(b.Takes, a.Takes) })
	s.night(in)
	return s
}

func sizeOne(in sizingInput, s Sizing, vm SurveyedVM, paces map[string]pace) SizingRow {
	r := SizingRow{VMID: in.ids[vm.MOID], MOID: vm.MOID, Name: vm.Name, Transport: vm.Transport, Rate: s.Rate, job: vm.VirtualMachine}
	r.job.ID = r.VMID
	for _, d := range vm.Disks {
		if d.Unprotectable == "" {
			r.Provisioned += d.Capacity
		}
	}
	r.Booked, r.Scheduled = in.booked[r.VMID]
	r.Read = r.Provisioned
	if vm.Allocated > 0 {
		r.Read = min(r.Read, vm.Allocated)
	}
	if p, ok := paces[r.VMID]; ok {
		r.Measured, r.Read, r.Takes = true, p.read, p.takes
		r.Rate = p.rate()
		if in.rate > 0 {
			r.Rate = in.rate
			r.Takes = spent(r.Read, in.rate)
		}
	} else {
		r.Takes = spent(r.Read, r.Rate)
	}
	if r.Transport == TransportNFC {
		r.Lease = r.Takes
	}
	switch {
	case r.Lease > s.LeaseCap:
		r.Misfit = fmt.Sprintf("its lease lasts longer than %s", lasting(s.LeaseCap))
	case r.Takes > s.Window:
		r.Misfit = fmt.Sprintf("it takes longer than the window of %s", lasting(s.Window))
	case r.Booked > 0 && r.Takes > r.Booked:
		r.Misfit = fmt.Sprintf("its schedule books %s", lasting(r.Booked))
	}
	return r
}

func spent(n, rate int64) time.Duration {
	return time.Duration(float64(n) / float64(max(1, rate)) * float64(time.Second))
}

// night runs the backups in mind, the longest first, as the limits let them.
func (s *Sizing) night(in sizingInput) {
	var jobs []SizingRow
	for _, r := range s.Rows {
		if r.Scheduled || s.Scheduled == 0 {
			jobs = append(jobs, r)
			s.Read += r.Read
		}
	}
	s.Night = rehearse(in.vcenter, jobs, cmp.Or(in.slots, defaultSlots))
	if limit := in.vcenter.Limits.BytesPerSecond; limit > 0 {
		s.Night = max(s.Night, spent(s.Read, limit))
	}
}

// lookahead bounds how many waiting jobs are tried for each place that comes free.
const lookahead = 200

// rehearse tells when the last of the jobs would end that begin as soon as
// their limits let them.
func rehearse(v VCenter, waiting []SizingRow, slots int) time.Duration {
	used := map[string]int{}
	var now time.Duration
	var running endings
	fits := func(keys []JobKey) bool {
		return !slices.ContainsFunc(keys, func(k JobKey) bool { return used[k.Name]+k.Weight > k.Max })
	}
	for len(waiting) > 0 || running.Len() > 0 {
		for n := 0; n < min(len(waiting), lookahead) && running.Len() < slots; {
			keys := keysOf(v, waiting[n].job)
			if !fits(keys) {
				n++
				continue
			}
			for _, k := range keys {
				used[k.Name] += k.Weight
			}
			heap.Push(&running, rehearsed{now + waiting[n].Takes, keys})
			waiting = slices.Delete(waiting, n, n+1)
		}
		if running.Len() == 0 {
			break // impossible: a job by itself always fits
		}
		over := heap.Pop(&running).(rehearsed)
		now = over.at
		for _, k := range over.keys {
			used[k.Name] -= k.Weight
		}
	}
	return now
}

// rehearsed is a job that runs until at.
type rehearsed struct {
	at   time.Duration
	keys []JobKey
}

// endings is a heap of jobs by their end.
type endings []rehearsed

func (e endings) Len() int           { return len(e) }
func (e endings) Less(i, j int) bool { return e[i].at < e[j].at }
func (e endings) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push implements [heap.Interface].
func (e *endings) Push(x any) { *e = append(*e, x.(rehearsed)) }

// Pop implements [heap.Interface].
func (e *endings) Pop() any {
	old := *e
	last := old[len(old)-1]
	*e = old[:len(old)-1]
	return last
}

// roughly is [lasting] for what may take no minute.
func roughly(d time.Duration) string {
	if d < time.Minute {
		return "less than a minute"
	}
	return lasting(d)
}

// examineSizing says what of the prediction does not fit.
func (f *findings) examineSizing(s Sizing) {
	if len(s.Rows) == 0 {
		return
	}
	var long, wide, booked []string
	for _, r := range s.Rows {
		switch {
		case r.Misfit == "" || s.Scheduled > 0 && !r.Scheduled:
		case r.Lease > s.LeaseCap:
			long = append(long, r.Name)
		case r.Takes > s.Window:
			wide = append(wide, r.Name)
		default:
			booked = append(booked, r.Name)
		}
	}
	misfit := func(check string, names []string, seen, why, remedy string) {
		if len(names) > 0 {
			f.add(Finding{Check: check, Severity: FindingWarning, Objects: names, Seen: fmt.Sprintf(seen, named(names)), Why: why, Remedy: remedy})
		}
	}
	misfit("sizing.lease", long, "Predicted to hold an export lease for more than "+lasting(s.LeaseCap)+": %s.",
		"While a lease stands, vSphere does not move the VM to another host, and its snapshot grows.", "Read them over hotadd or nbd, which need no lease and read only what has changed.")
	misfit("sizing.window", wide, "Predicted to take longer than the window of "+lasting(s.Window)+": %s.",
		"Their backups run into the day.", "Read them over hotadd or nbd, give them a slot that begins earlier, or widen the window: --window.")
	misfit("sizing.booked", booked, "Predicted to take longer than the hours that their schedules book: %s.",
		"They hold disks of hours that others have booked, which then start late.", "Set duration_hours to what the table says.")
	of := plural(s.Scheduled, "scheduled VM")
	if s.Scheduled == 0 {
		of = "all " + plural(len(s.Rows), "VM")
	}
	basis := fmt.Sprintf("%d of %d at rates that were measured, the others at %s/s", s.Measured, len(s.Rows), SizeText(s.Rate))
	if s.Night > s.Window {
		f.add(Finding{Check: "sizing.night", Severity: FindingWarning, Seen: fmt.Sprintf("One backup of %s reads %s and takes %s in all, more than the window of %s (%s).", of, SizeText(s.Read), roughly(s.Night), lasting(s.Window), basis),
			Why: "Within the vcenter's limits they do not fit into one night.", Remedy: "Spread the schedules over several nights, raise the limits of disks or jobs, add a server, or read over hotadd or nbd."})
		return
	}
	f.ok("sizing.night", "One backup of %s reads %s and takes %s in all, within the window of %s (%s).", of, SizeText(s.Read), roughly(s.Night), lasting(s.Window), basis)
}
