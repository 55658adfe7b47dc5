package lab_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kura-backup/terraform-provider-kura/server/lab"
)

// control is a client of a lab's control.
type control struct {
	t   *testing.T
	url string
}

func (e *env) control() control {
	s := httptest.NewServer(e.ControlHandler())
	e.t.Cleanup(s.Close)
	return control{e.t.(*testing.T), s.URL}
}

func (c control) do(method, path, body string, into any) int {
	c.t.Helper()
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if raw, ok := into.(*[]byte); ok {
		*raw = b
	} else if into != nil {
		if err := json.Unmarshal(b, into); err != nil {
			c.t.Fatalf("%s %s: %v in %s", method, path, err, b)
		}
	}
	return res.StatusCode
}

func TestTheControlListsVMsWithChecksums(t *testing.T) {
	e := start(t, lab.Config{})
	c := e.control()
	var list []lab.VM
	if code := c.do("GET", "/vms?sha256=1", "", &list); code != 200 || len(list) != 3 {
		t.Fatalf("GET /vms: %d, %d VMs", code, len(list))
	}
	for _, v := range list {
		for _, d := range v.Disks {
			if d.SHA256 != e.sum(v.Name, d.Key) || d.Capacity != diskSize || !strings.HasPrefix(d.File, "[LocalDS_") {
				t.Errorf("%s: %+v", v.Name, d)
			}
		}
	}
	var plain []lab.VM
	if code := c.do("GET", "/vms", "", &plain); code != 200 || plain[0].Disks[0].SHA256 != "" {
		t.Errorf("GET /vms without sha256: %d, %+v", code, plain[0])
	}
	var keys map[string]any
	raw, err := json.Marshal(list[0])
	if err != nil || json.Unmarshal(raw, &keys) != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"name", "moid", "instance_uuid", "power_state", "snapshots", "tags", "folder", "disks"} {
		if _, ok := keys[k]; !ok {
			t.Errorf("a VM has no %q", k)
		}
	}
}

func TestTheControlWritesReadsAndPowers(t *testing.T) {
	e := start(t, lab.Config{})
	c := e.control()
	v, err := e.VM("vm01")
	if err != nil {
		t.Fatal(err)
	}
	disk := fmt.Sprintf("/vms/vm01/disks/%d", v.Disks[0].Key)
	if code := c.do("POST", disk+"/write?offset=1000&length=5000&seed=42", "", nil); code != 200 {
		t.Fatalf("write: %d", code)
	}
	want := make([]byte, 5000)
	lab.Noise(42, want)
	var got []byte
	if code := c.do("GET", strings.Replace(disk, "vm01", v.Moid, 1), "", &got); code != 200 || !bytes.Equal(got[1000:6000], want) || len(got) != diskSize {
		t.Errorf("read: %d, %d bytes", code, len(got))
	}
	for path, want := range map[string]int{
		disk + "/write?offset=-1":               400,
		disk + "/write?offset=99999999999":      400,
		"/vms/vm01/disks/77/write":              404,
		"/vms/nobody/disks/2000/write":          404,
		"/vms/vm01/power?state=sideways":        400,
		"/vms/vm01/power?state=off":             200,
		"/vms/vm02/power?state=on":              200,
		"/vms/vm02/writer?state=on&every=1ms":   200,
		"/vms/vm02/writer?state=off":            200,
		"/vms/vm02/writer?state=on&every=never": 400,
		"/vms/vm02/reset-changes":               200,
		"/sessions/expire":                      200,
	} {
		if code := c.do("POST", path, "", nil); code != want {
			t.Errorf("POST %s: %d, want %d", path, code, want)
		}
	}
	if v, _ := e.VM("vm01"); v.PowerState != "poweredOff" {
		t.Errorf("vm01 is %s", v.PowerState)
	}
	var grown lab.VM
	if code := c.do("POST", disk+"/extend?capacity=33554432", "", &grown); code != 200 || grown.Disks[0].Capacity != 32*mib {
		t.Errorf("extend: %d, %+v", code, grown)
	}
}

func TestTheControlCreatesAndDeletesVMs(t *testing.T) {
	e := start(t, lab.Config{})
	c := e.control()
	var v struct {
		lab.VM
		Error string
	}
	name := "a name / with 蔵"
	if code := c.do("POST", "/vms", `{"name":"`+name+`","disks":[1048576,2097152],"gold":true,"folder":"/DC0/vm/test"}`, &v); code != 200 {
		t.Fatalf("create: %d %s", code, v.Error)
	}
	if v.Name != lab.EscapeName(name) || len(v.Disks) != 2 || v.Disks[1].Capacity != 2*mib || v.Folder != "/DC0/vm/test" || len(v.Tags) != 1 {
		t.Errorf("created %+v", v)
	}
	if code := c.do("POST", "/vms", `{"name":"`+name+`"}`, nil); code != 409 {
		t.Errorf("create it again: %d, want 409", code)
	}
	if code := c.do("POST", "/vms", `{"nom":"x"}`, nil); code != 400 {
		t.Errorf("an unknown field: %d, want 400", code)
	}
	if code := c.do("DELETE", "/vms/"+url.PathEscape(v.Name), "", nil); code != 200 {
		t.Errorf("delete: %d", code)
	}
	if code := c.do("DELETE", "/vms/"+v.Moid, "", nil); code != 404 {
		t.Errorf("delete it again: %d, want 404", code)
	}
}

func TestTheControlArmsFaultsAndListsTasks(t *testing.T) {
	e := start(t, lab.Config{})
	c := e.control()
	if code := c.do("POST", "/faults", `{"kind":"task_slow","vm":"vm01","count":2,"after":1,"delay":"2s"}`, nil); code != 200 {
		t.Fatalf("arm: %d", code)
	}
	if code := c.do("POST", "/faults", `{"kind":"task_slow","delay":0.5}`, nil); code != 200 {
		t.Fatalf("arm with a delay in seconds: %d", code)
	}
	if code := c.do("POST", "/faults", `{"kind":"nonsense"}`, nil); code != 400 {
		t.Errorf("arm an unknown kind: %d, want 400", code)
	}
	var got struct {
		Kinds []struct{ Name, Help string }
		Armed []lab.Fault
	}
	c.do("GET", "/faults", "", &got)
	if len(got.Armed) != 2 || got.Armed[0].Delay.Seconds() != 2 || got.Armed[0].VM != "vm01" || got.Armed[1].Delay.Milliseconds() != 500 {
		t.Errorf("armed: %+v", got.Armed)
	}
	for _, k := range got.Kinds {
		if k.Name == "" || k.Help == "" {
			t.Errorf("a kind without name or help: %+v", k)
		}
	}
	c.do("DELETE", "/faults", "", nil)
	if c.do("GET", "/faults", "", &got); len(got.Armed) != 0 {
		t.Errorf("after DELETE: %+v", got.Armed)
	}
	e.snapshot(e.vm("vm01"), "s")
	var tasks []lab.Task
	c.do("GET", "/tasks", "", &tasks)
	last := tasks[len(tasks)-1]
	if last.Name != "CreateSnapshot_Task" || last.Entity != "vm01" || last.State != "success" || last.End == nil {
		t.Errorf("last task: %+v", last)
	}
}
