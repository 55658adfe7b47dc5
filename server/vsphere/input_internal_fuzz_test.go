package vsphere

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// FuzzChangedAreas: whatever a vCenter says has changed on a disk, it is refused
// or told once, in order, and nothing beyond the disk's end.
func FuzzChangedAreas(f *testing.F) {
	numbers := func(all ...int64) (b []byte) {
		for _, n := range all {
			b = binary.BigEndian.AppendUint64(b, uint64(n))
		}
		return b
	}
	f.Add(int64(1<<20), numbers(0, 1<<20, 2, 0, 512, 512, 512))
	f.Add(int64(1<<20), numbers(0, 4096, 0, 4096, 1<<63-1, 0))
	f.Add(int64(1<<20), numbers(0, 4096, 1, 0, 4096, 4096, 1<<63-1, 1, 1<<63-1, 1))
	f.Fuzz(func(t *testing.T, capacity int64, b []byte) {
		if capacity <= 0 {
			return
		}
		pick := func() (n int64) {
			if len(b) < 8 {
				b = nil
				return 0
			}
			n, b = int64(binary.BigEndian.Uint64(b)), b[8:]
			return n
		}
		var told int64
		p := pages{capacity: capacity, fn: func(e backup.Extent) error {
			if e.Off < told || e.N <= 0 || e.Off > capacity-e.N {
				t.Errorf("told of %+v after %d on a disk of %d", e, told, capacity)
			}
			told = e.Off + e.N
			return nil
		}}
		for len(b) > 0 && p.next < capacity {
			before := p.next
			page := types.DiskChangeInfo{StartOffset: pick(), Length: pick()}
			for range pick() & 3 {
				page.ChangedArea = append(page.ChangedArea, types.DiskChangeExtent{Start: pick(), Length: pick()})
			}
			if p.take(page) != nil {
				return
			}
			if p.next <= before || p.next > capacity {
				t.Fatalf("after the page %+v at %d comes %d on a disk of %d", page, before, p.next, capacity)
			}
		}
	})
}

// FuzzMachines: the VM's configuration in an image is read, or the image is
// damaged.
func FuzzMachines(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"erp","config":{"_typeName":"VirtualMachineConfigInfo","name":"erp","hardware":{"_typeName":"VirtualHardware","device":[{"_typeName":"VirtualDisk","key":2000,"backing":{"_typeName":"VirtualDiskFlatVer2BackingInfo","fileName":"[ds1] erp/erp.vmdk"}}]},"extraConfig":[{"_typeName":"OptionValue","key":"kura.kept","value":{"_typeName":"string","_value":"[]"}}]}}`))
	f.Add([]byte(`{"version":2}`))
	f.Add([]byte(`{"version":1,"config":{"_typeName":"VirtualMachineConfigInfo","hardware":{"_typeName":"VirtualDisk"}}}`))
	f.Add([]byte(`{"version":1,"config":{"_typeName":"HostSystem","hardware":{"device":[null,{"_typeName":"Description"}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, config, err := decodeMachine(b)
		if err != nil {
			if backup.AsError(err) == nil {
				t.Errorf("%q: %v, want what can be told", b, err)
			}
			return
		}
		_ = usedFiles(config.Hardware.Device)
		_ = extra(config, keptKey)
		raw, err := encodeVim(config)
		if err != nil {
			return // a value of no type of vSphere's
		}
		m.Config = raw
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		if again, _, err := decodeMachine(text); err != nil || again.Name != m.Name {
			t.Errorf("%s is read as %+v, %v", text, again, err)
		}
	})
}

// FuzzRecords: what kura has written into VMs and names may have been changed by
// anybody who may write there.
func FuzzRecords(f *testing.F) {
	for _, s := range []string{
		"kura:01JDZK3Q8X4T9V2M6B7N5C1R0A:01JDZK3Q8X4T9V2M6B7N5C1R0G:1", "kura:::", "kura:a:b:-1", "kura:a:b:99999999999999999999", `[{"marker":"kura:a:b:1","old":["[ds1] x"]},null]`, `[{"uuids":null}]`,
		"a/b%2f", "%25252f", "%2", "..", "AA:BB", strings.Repeat("ab:", 32),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, ok := parseMarker(s); ok {
			if m.installation == "" || m.job == "" || m.attempt < 0 || strings.Contains(m.job, ":") {
				t.Errorf("%q is the marker %+v", s, m)
			}
			if again, ok := parseMarker(markerPrefix + m.installation + ":" + m.job + ":1"); !ok || again.job != m.job {
				t.Errorf("the marker %+v is read as %+v", m, again)
			}
		}
		if got := unescapeName(escapeName(s)); got != s || strings.ContainsAny(escapeName(s), `/\`) {
			t.Errorf("%q is escaped as %q and read as %q", s, escapeName(s), got)
		}
		if list, err := decodeKept(s); err == nil {
			option, err := encodeKept(list)
			if err != nil {
				t.Fatal(err)
			}
			again, err := decodeKept(option.GetOptionValue().Value.(string))
			if err != nil || len(again) != len(list) {
				t.Errorf("%q is read as %+v and then %+v, %v", s, list, again, err)
			}
		}
		if list, err := decodeAttached(s); err == nil {
			for _, a := range list {
				if a.ours(&types.VirtualDisk{}) {
					t.Errorf("%+v says that a disk without a file is kura's", a)
				}
			}
		}
		_, err := newTrust(backup.VCenter{Thumbprint: s}, "vc:443", 0)
		if e := backup.AsError(err); err != nil && (e == nil || e.Code != backup.Invalid || !slices.Contains([]string{"thumbprint", "ca_certificate"}, e.Field)) {
			t.Errorf("thumbprint %q: %v", s, err)
		}
	})
}
