package vsphere_test

import (
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// seed:N57 seed:K15
func TestTheLoadOfADatastoreIsItsSpaceAndHowSlowlyItAnswers(t *testing.T) {
	c := small()
	c.DatastoreSize = 1 << 30
	r := setup(t, c)
	m, err := r.session.Machine(t.Context(), r.lab.Moid("vm01"))
	r.ok(err)
	name := m.Datastores[0]
	loads, err := r.session.DatastoreLoad(t.Context(), m.Host, []string{name, "none of that name"})
	r.ok(err)
	was := loads[name]
	if len(loads) != 1 || was.Capacity != 1<<30 || was.Free <= 0 || was.Free >= was.Capacity || was.Latency <= 0 || was.Latency > 10*time.Millisecond {
		t.Fatalf("loads = %+v, want that of %s, which is well", loads, name)
	}
	r.ok(r.lab.Arm(lab.Fault{Kind: "datastore_slow", VM: name, Delay: 45 * time.Millisecond}))
	r.lab.Occupy(name, 512<<20)
	loads, err = r.session.DatastoreLoad(t.Context(), m.Host, []string{name})
	r.ok(err)
	if now := loads[name]; now.Latency != 45*time.Millisecond || was.Free-now.Free != 512<<20 {
		t.Errorf("load = %+v after %+v, want 45 ms and 512 MiB less", now, was)
	}
	loads, err = r.session.DatastoreLoad(t.Context(), "", []string{name})
	r.ok(err)
	if loads[name].Latency != 0 || loads[name].Free == 0 {
		t.Errorf("load = %+v where no host is named, want its space alone", loads[name])
	}
}
