package backup

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// What the doctor holds a vcenter to.
const (
	certificateWarning = 30 * 24 * time.Hour
	certificateError   = 3 * 24 * time.Hour
	clockWarning       = 30 * time.Second
	clockError         = 5 * time.Minute
	oldInventory       = time.Hour
)

// examineVCenter judges the way to a vcenter and the vcenter itself.
func (f *findings) examineVCenter(v VCenter, s Survey, now time.Time) {
	if s.Problem != nil {
		f.unreachable(s)
	} else {
		f.ok("vcenter.reachable", "%s answers and lets %s in (%s).", s.Endpoint, v.Username, s.Product)
	}
	f.certificate(v, s, now)
	if s.Problem != nil {
		return
	}
	f.clock("vcenter.clock", "The vCenter's clock", nil, s.Clock)
	f.version(s)
	f.identity(v, s)
	f.inventory(v, now)
	f.privileges(s)
	for _, what := range s.Unread {
		f.add(Finding{Check: "vcenter.unread", Severity: FindingWarning, Seen: what,
			Why: "What is not read is not judged.", Remedy: "See whether the account may read it, and ask the doctor again."})
	}
}

func (f *findings) unreachable(s Survey) {
	seen, remedy := "There is no session with "+s.Endpoint+".", "See the server's log for the cause."
	var e *Error
	if errors.As(s.Problem, &e) {
		seen, remedy = e.Message, map[Code]string{
			VCenterUnreachable: "See that the name resolves and that port 443 is open from this server to the vCenter.",
			VCenterDenied:      "Give the right account, password or thumbprint: see kura vcenter show.",
		}[e.Code]
	}
	f.add(Finding{Check: "vcenter.reachable", Severity: FindingError, Seen: seen, Why: "Nothing can be backed up or restored without a session.", Remedy: remedy})
}

func (f *findings) certificate(v VCenter, s Survey, now time.Time) {
	c := s.Certificate
	if c.Thumbprint == "" {
		return // nobody answered, which is said already
	}
	left := c.NotAfter.Sub(now)
	days := int(left.Hours() / 24)
	by := map[string]string{"pinned": "its thumbprint is the pinned one", "ca": "the given authority signed it", "system": "an authority of this system signed it"}[c.Trust]
	remedy := "Renew it in vCenter in time."
	if c.Trust == "pinned" {
		remedy += " The new one has another thumbprint: set thumbprint then, or give ca_certificate now so that renewals need nothing."
	}
	one := Finding{Check: "vcenter.certificate", Severity: FindingOK, Seen: fmt.Sprintf("The certificate is trusted (%s) and is good for %s.", by, plural(days, "day"))}
	switch {
	case c.Trust == "":
		one.Severity = FindingError
		one.Seen = "The certificate that " + s.Endpoint + " shows is not trusted. Its SHA-256 thumbprint is " + c.Thumbprint + "."
		one.Why, one.Remedy = "Who is not recognised is given no password.", "If the vCenter itself shows the same, set thumbprint to it, or give its authority as ca_certificate."
	case left <= 0 && c.Trust == "pinned":
		one.Severity, one.Seen = FindingWarning, "The certificate ended on "+c.NotAfter.UTC().Format(time.DateOnly)+"; it is still taken, as its thumbprint is the pinned one."
		one.Why, one.Remedy = "Others will refuse it, and it is about to be replaced.", remedy
	case left < certificateWarning:
		one.Severity = FindingWarning
		if left < certificateError && c.Trust != "pinned" {
			one.Severity = FindingError
		}
		one.Seen = fmt.Sprintf("The certificate ends on %s: %s are left.", c.NotAfter.UTC().Format(time.DateOnly), plural(max(0, days), "day"))
		one.Why, one.Remedy = "Once it has ended or is replaced, every backup fails until the new one is trusted.", remedy
	}
	f.add(one)
}

// clock judges one clock; whose begins a sentence.
func (f *findings) clock(check, whose string, objects []string, c SurveyedClock) {
	if !c.Read {
		return
	}
	off := c.Ahead.Abs()
	way := "ahead of"
	if c.Ahead < 0 {
		way = "behind"
	}
	one := Finding{Check: check, Severity: FindingOK, Objects: objects, Seen: fmt.Sprintf("%s is within %s of this server's.", whose, (off + c.Give).Round(time.Millisecond))}
	if off > clockWarning+c.Give {
		one.Severity, one.Seen = FindingWarning, fmt.Sprintf("%s is %s %s this server's.", whose, off.Round(time.Second), way)
		one.Why = "An image's point in time is the vCenter's, its retention and its slot are this server's."
		one.Remedy = "Let both follow the same NTP servers."
		if off > clockError {
			one.Severity = FindingError
			one.Why += " With this much between them logins by token and leases fail as well."
		}
	}
	f.add(one)
}

// The vSphere API that kura was written for, and what it does without.
const (
	apiWanted  = "7.0"
	apiMinimum = "6.5"
)

func (f *findings) version(s Survey) {
	switch {
	case olderVersion(s.APIVersion, apiMinimum):
		f.add(Finding{Check: "vcenter.version", Severity: FindingError, Seen: "The vSphere API is " + s.APIVersion + ".",
			Why: "Kura calls what came with " + apiMinimum + ".", Remedy: "Upgrade vSphere to " + apiWanted + " or later."})
	case olderVersion(s.APIVersion, apiWanted):
		f.add(Finding{Check: "vcenter.version", Severity: FindingWarning, Seen: "The vSphere API is " + s.APIVersion + ".",
			Why: "Its maker gives no more security updates for it, and Kura is made for " + apiWanted + " and later.", Remedy: "Upgrade vSphere."})
	default:
		f.ok("vcenter.version", "The vSphere API is %s.", s.APIVersion)
	}
}

// olderVersion compares "8.0.2.0" and the like number by number.
func olderVersion(a, than string) bool {
	x, y := strings.Split(a, "."), strings.Split(than, ".")
	for i := range y {
		var p, q int
		if i < len(x) {
			p, _ = strconv.Atoi(x[i]) // what is no number is old
		}
		q, _ = strconv.Atoi(y[i])
		if p != q {
			return p < q
		}
	}
	return false
}

func (f *findings) identity(v VCenter, s Survey) {
	if v.InstanceUUID == "" || v.InstanceUUID == s.InstanceUUID {
		f.ok("vcenter.identity", "It is the vCenter that it was (instance UUID %s).", s.InstanceUUID)
		return
	}
	f.add(Finding{Check: "vcenter.identity", Severity: FindingError,
		Seen:   fmt.Sprintf("The instance UUID is %s; it was %s.", s.InstanceUUID, v.InstanceUUID),
		Why:    "Another vCenter answers at this address, or it was built anew: VMs are other objects there, so nothing is backed up until they are bound again.",
		Remedy: "Add it as a vcenter of its own, and bind the VMs of the old one to it."})
}

func (f *findings) inventory(v VCenter, now time.Time) {
	age := now.Sub(v.SyncedAt)
	one := Finding{Check: "vcenter.inventory", Why: "Selectors and plans go by the inventory that was read last.", Remedy: "Read it now: kura vcenter sync " + strconv.Quote(v.Name) + " --wait."}
	switch {
	case v.SyncState == SyncFailed:
		one.Severity, one.Seen = FindingError, "The inventory could not be read: "+v.SyncError
	case v.SyncedAt.IsZero():
		one.Severity, one.Seen = FindingWarning, "The inventory was not read yet."
	case age > oldInventory:
		one.Severity, one.Seen = FindingWarning, "The inventory is of "+v.SyncedAt.UTC().Format("2006-01-02 15:04 UTC")+"."
	default:
		f.ok("vcenter.inventory", "The inventory is %s old.", max(0, age).Round(time.Second))
		return
	}
	f.add(one)
}

// privileges names each missing privilege and what needs it.
func (f *findings) privileges(s Survey) {
	for _, p := range s.Privileges {
		one := Finding{Check: "vcenter.privileges", Severity: FindingError, Objects: p.Objects,
			Why:    "It is needed to " + p.For + ".",
			Remedy: "Give the account a role that has it. kura doctor --role-file writes one with what Kura needs and no more."}
		if p.Optional {
			one.Severity = FindingWarning
		}
		where := "everywhere"
		if len(p.Objects) < p.Looked {
			where = "on " + named(p.Objects)
		}
		one.Seen = fmt.Sprintf("The account lacks %s %s.", p.ID, where)
		f.add(one)
	}
	if len(s.Privileges) == 0 {
		f.ok("vcenter.privileges", "The account has all the privileges that Kura uses.")
	}
}
