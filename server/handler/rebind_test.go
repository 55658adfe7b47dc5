package handler_test

import (
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/api"
	"github.com/kura-backup/terraform-provider-kura/server/auth"
	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

func TestAVCenterIsReboundByOperatorsAsTheMapSays(t *testing.T) {
	r := newRig(t)
	image := r.image(r.vms[0], func(*backup.Image) {})
	there := backup.VCenter{Name: "rebuilt", Endpoint: "https://rebuilt.example", Username: "kura", Password: "p"}.Defaulted()
	r.must(r.db.Update(t.Context(), func(tx backup.Tx) error {
		if err := tx.InsertVCenter(t.Context(), &there); err != nil {
			return err
		}
		there.SyncState, there.SyncedAt = backup.SyncReady, r.clock.Now()
		if err := tx.SaveSync(t.Context(), there); err != nil {
			return err
		}
		same, other := r.vms[0], r.vms[1]
		same.ID, same.VCenterID, same.MOID = "", there.ID, "vm-1001"
		other.ID, other.VCenterID, other.MOID, other.InstanceUUID, other.BIOSUUID, other.Name = "", there.ID, "vm-1002", "anew", "anew", "renamed"
		return tx.SaveMachines(t.Context(), []backup.VirtualMachine{same, other})
	}))
	path := "/v1/vcenters/" + r.vcenter.ID + ":rebind"
	ask := api.RebindRequest{To: there.ID, DryRun: true, Map: []api.RebindPair{{VirtualMachineID: r.vms[1].ID, MOID: "vm-1002"}}}
	if a := r.do(call{method: "POST", path: path, role: auth.Backup, body: ask}); a.status != 403 {
		t.Errorf("as backup: %d, want 403", a.status)
	}
	dry := into[api.RebindResult](r, r.do(call{method: "POST", path: path, role: auth.Operator, body: ask}), 200)
	if !dry.DryRun || len(dry.Moved) != 2 || len(dry.Left) != 3 {
		t.Fatalf("a dry run tells %+v, want two VMs that move and three that stay", dry)
	}
	first, second := dry.Moved[0], dry.Moved[1]
	if first.VirtualMachine.ID != r.vms[0].ID || first.ToMOID != "vm-1001" || first.RecognizedBy != "instance UUID" || first.Images != 1 || second.ToName != "renamed" || second.RecognizedBy != "the map" || dry.Left[0].Reason == "" {
		t.Errorf("moved are %+v, left %+v", dry.Moved, dry.Left)
	}
	ask.DryRun = false
	done := into[api.RebindResult](r, r.do(call{method: "POST", path: path, role: auth.Operator, body: ask}), 200)
	vm := into[api.VirtualMachine](r, r.do(call{method: "GET", path: "/v1/virtual-machines/" + r.vms[0].ID, role: auth.Viewer}), 200)
	img := into[api.BackupImage](r, r.do(call{method: "GET", path: "/v1/backup-images/" + image.ID, role: auth.Viewer}), 200)
	if done.DryRun || vm.VCenterID != there.ID || vm.MOID != "vm-1001" || img.VCenterID != there.ID || img.VirtualMachine.ID != vm.ID {
		t.Errorf("after it the VM is %s in %s and its image of %s in %s", vm.MOID, vm.VCenterID, img.VirtualMachine.ID, img.VCenterID)
	}
	twice := ask
	twice.Map = append(twice.Map, twice.Map[0])
	for name, c := range map[string]struct {
		ask   api.RebindRequest
		code  api.ErrorCode
		field string
	}{
		"a VM twice":   {twice, api.ErrorCodeInvalid, "map"},
		"to itself":    {api.RebindRequest{To: r.vcenter.ID}, api.ErrorCodeInvalid, "to"},
		"to nobody":    {api.RebindRequest{To: nobody}, api.ErrorCodeNotFound, "to"},
		"not of there": {ask, api.ErrorCodeInvalid, "map"},
	} {
		if a := r.do(call{method: "POST", path: path, role: auth.Operator, body: c.ask}); a.problem.Code != c.code || a.problem.Field != c.field {
			t.Errorf("%s: %d %s at %q, want %s at %q", name, a.status, a.problem.Code, a.problem.Field, c.code, c.field)
		}
	}
}
