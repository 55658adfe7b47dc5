package backup_test

import (
	"slices"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// seed:N70
func TestAVMIsKnownByWhatItIsAndTwoWithOneUUIDAreToldApart(t *testing.T) {
	vm := func(uuid, moid, name string) backup.VirtualMachine {
		return backup.VirtualMachine{VCenterID: "v", InstanceUUID: uuid, BIOSUUID: "bios-" + name, MOID: moid, Name: name}
	}
	is := func(id string, v backup.VirtualMachine) backup.VirtualMachine { v.ID = id; return v }
	gone := func(v backup.VirtualMachine) backup.VirtualMachine { v.GoneAt = time.Unix(1, 0); return v }
	elsewhere := func(v backup.VirtualMachine) backup.VirtualMachine { v.VCenterID = "w"; return v }
	for name, c := range map[string]struct {
		known, seen []backup.VirtualMachine
		want        []string
	}{
		"renamed": {
			[]backup.VirtualMachine{is("1", vm("u", "vm-1", "a"))}, []backup.VirtualMachine{vm("u", "vm-1", "b")}, []string{"1"}},
		"registered anew, under another name": {
			[]backup.VirtualMachine{gone(is("1", vm("u", "vm-1", "a")))}, []backup.VirtualMachine{vm("u", "vm-9", "b")}, []string{"1"}},
		"copied with its UUID": {
			[]backup.VirtualMachine{is("1", vm("u", "vm-1", "a"))}, []backup.VirtualMachine{vm("u", "vm-2", "a")}, []string{""}},
		"both seen, the copy first": {
			[]backup.VirtualMachine{is("1", vm("u", "vm-1", "a"))}, []backup.VirtualMachine{vm("u", "vm-2", "a"), vm("u", "vm-1", "a")}, []string{"", "1"}},
		"given another instance UUID": {
			[]backup.VirtualMachine{is("1", vm("u", "vm-1", "a"))}, []backup.VirtualMachine{vm("new", "vm-1", "a")}, []string{"1"}},
		"another VM that got the object id": {
			[]backup.VirtualMachine{is("1", vm("u", "vm-1", "a"))}, []backup.VirtualMachine{vm("other", "vm-1", "b")}, []string{""}},
		"two with one UUID, registered anew": {
			[]backup.VirtualMachine{gone(is("1", vm("u", "vm-1", "a"))), gone(is("2", vm("u", "vm-2", "b")))},
			[]backup.VirtualMachine{vm("u", "vm-8", "b"), vm("u", "vm-9", "a")}, []string{"2", "1"}},
		"one of two, registered anew and renamed": {
			[]backup.VirtualMachine{gone(is("1", vm("u", "vm-1", "a"))), gone(is("2", vm("u", "vm-2", "b")))}, []backup.VirtualMachine{vm("u", "vm-8", "c")}, []string{""}},
		"two new ones for one that has gone": {
			[]backup.VirtualMachine{gone(is("1", vm("u", "vm-1", "a")))}, []backup.VirtualMachine{vm("u", "vm-8", "b"), vm("u", "vm-9", "c")}, []string{"", ""}},
		"of another vcenter": {
			[]backup.VirtualMachine{gone(is("1", vm("u", "vm-1", "a")))}, []backup.VirtualMachine{elsewhere(vm("u", "vm-1", "a"))}, []string{""}},
	} {
		if got := backup.Identify(c.known, c.seen); !slices.Equal(got, c.want) {
			t.Errorf("%s: Identify = %q, want %q", name, got, c.want)
		}
	}
}
