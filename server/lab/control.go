package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Control serves the control of one or several labs: what tests and people do
// to a data centre behind the vCenter's back. A VM is named by moid or name;
// where several vCenters have one of that name, ?vcenter=UUID tells them apart.
func Control(labs ...*Lab) http.Handler {
	c := control{labs: labs}
	m := http.NewServeMux()
	for pattern, h := range map[string]func(*http.Request) (any, error){
		"GET /vms":                          c.listVMs,
		"POST /vms":                         c.createVM,
		"DELETE /vms/{vm}":                  c.deleteVM,
		"POST /vms/{vm}/disks/{key}/write":  c.writeDisk,
		"POST /vms/{vm}/disks/{key}/extend": c.extendDisk,
		"POST /vms/{vm}/power":              c.power,
		"POST /vms/{vm}/writer":             c.writer,
		"POST /vms/{vm}/reset-changes":      c.resetChanges,
		"POST /sessions/expire":             c.expireSessions,
		"GET /faults":                       c.listFaults,
		"POST /faults":                      c.armFault,
		"DELETE /faults":                    c.clearFaults,
		"GET /tasks":                        c.listTasks,
	} {
		m.HandleFunc(pattern, answer(h))
	}
	m.HandleFunc("GET /vms/{vm}/disks/{key}", c.readDisk)
	return m
}

// ControlHandler serves the control of this lab alone.
func (l *Lab) ControlHandler() http.Handler { return Control(l) }

type control struct{ labs []*Lab }

// wrong is an error of the one who asks.
type wrong struct {
	code int
	err  error
}

func (w wrong) Error() string { return w.err.Error() }
func (w wrong) Unwrap() error { return w.err }

func bad(format string, args ...any) error {
	return wrong{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

func answer(h func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := h(r)
		if err != nil {
			fail(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		// The client may have gone; nobody is left to tell.
		_ = json.NewEncoder(w).Encode(v)
	}
}

func fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var x wrong
	switch {
	case errors.As(err, &x):
		code = x.code
	case errors.Is(err, ErrNoVM):
		code = http.StatusNotFound
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
}

// chosen lists the labs that a request is about.
func (c control) chosen(r *http.Request) []*Lab {
	id := r.URL.Query().Get("vcenter")
	if id == "" {
		return c.labs
	}
	for _, l := range c.labs {
		if l.UUID() == id {
			return []*Lab{l}
		}
	}
	return nil
}

func (c control) lab(r *http.Request) (*Lab, VM, error) {
	id := r.PathValue("vm")
	for _, l := range c.chosen(r) {
		if v, err := l.VM(id); err == nil {
			return l, v, nil
		}
	}
	return nil, VM{}, fmt.Errorf("%w: %q", ErrNoVM, id)
}

// disk finds the disk of a request.
func (c control) disk(r *http.Request) (*Lab, VM, int32, error) {
	l, v, err := c.lab(r)
	if err != nil {
		return nil, v, 0, err
	}
	key, err := strconv.ParseInt(r.PathValue("key"), 10, 32)
	if err != nil {
		return nil, v, 0, bad("disk key %q is not a number", r.PathValue("key"))
	}
	for _, d := range v.Disks {
		if d.Key == int32(key) {
			return l, v, d.Key, nil
		}
	}
	return nil, v, 0, wrong{http.StatusNotFound, fmt.Errorf("VM %s has no disk %d", v.Name, key)}
}

func (c control) listVMs(r *http.Request) (any, error) {
	list := []VM{}
	for _, l := range c.chosen(r) {
		vms := l.VMs()
		if r.URL.Query().Get("sha256") == "1" {
			if err := l.sums(r.Context(), vms); err != nil {
				return nil, err
			}
		}
		list = append(list, vms...)
	}
	return list, nil
}

// sums fills in the checksums of all disks.
func (l *Lab) sums(ctx context.Context, vms []VM) error {
	for _, v := range vms {
		for i, d := range v.Disks {
			sum, err := l.DiskSHA256(ctx, v.Moid, d.Key)
			if err != nil {
				return err
			}
			v.Disks[i].SHA256 = sum
		}
	}
	return nil
}

func (c control) createVM(r *http.Request) (any, error) {
	var s VMSpec
	if err := decodeBody(r, &s); err != nil {
		return nil, err
	}
	labs := c.chosen(r)
	if len(labs) == 0 {
		return nil, bad("there is no vcenter %q", r.URL.Query().Get("vcenter"))
	}
	if s.Name == "" {
		return nil, bad("a VM needs a name")
	}
	v, err := labs[0].AddVM(r.Context(), s)
	if err != nil {
		return nil, wrong{http.StatusConflict, err}
	}
	return labs[0].VM(v.Moid)
}

func (c control) deleteVM(r *http.Request) (any, error) {
	l, v, err := c.lab(r)
	if err != nil {
		return nil, err
	}
	return v, l.RemoveVM(r.Context(), v.Moid)
}

// maxWrite bounds what one request makes a guest write.
const maxWrite = 64 << 30

func (c control) writeDisk(r *http.Request) (any, error) {
	l, v, key, err := c.disk(r)
	if err != nil {
		return nil, err
	}
	off, err1 := number(r, "offset", 0)
	length, err2 := number(r, "length", 1<<20)
	seed, err3 := number(r, "seed", 1)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	if length > maxWrite {
		return nil, bad("length %d is more than %d", length, maxWrite)
	}
	if err := l.GuestWriteRandom(v.Moid, key, off, length, uint64(seed)); err != nil {
		return nil, bad("%w", err)
	}
	return map[string]int64{"written": length}, nil
}

func (c control) extendDisk(r *http.Request) (any, error) {
	l, v, key, err := c.disk(r)
	if err != nil {
		return nil, err
	}
	size, err := number(r, "capacity", 0)
	if err != nil {
		return nil, err
	}
	if err := l.ExtendDisk(v.Moid, key, size); err != nil {
		return nil, bad("%w", err)
	}
	return l.VM(v.Moid)
}

// number reads a number of a query that is not negative.
func number(r *http.Request, name string, otherwise int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, bad("%s=%s is not a number of at least 0", name, s)
	}
	return n, nil
}

// readDisk sends the guest's present bytes; ranges are served.
func (c control) readDisk(w http.ResponseWriter, r *http.Request) {
	l, v, key, err := c.disk(r)
	if err != nil {
		fail(w, err)
		return
	}
	d, err := l.DiskReader(v.Moid, key)
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, d)
}

// state reads the query's on or off.
func state(r *http.Request) (bool, error) {
	switch s := r.URL.Query().Get("state"); s {
	case "on", "off":
		return s == "on", nil
	default:
		return false, bad("state=%s is neither on nor off", s)
	}
}

func (c control) power(r *http.Request) (any, error) {
	l, v, err := c.lab(r)
	if err != nil {
		return nil, err
	}
	on, err := state(r)
	if err != nil {
		return nil, err
	}
	if err := l.SetPower(r.Context(), v.Moid, on); err != nil {
		return nil, wrong{http.StatusConflict, err}
	}
	return l.VM(v.Moid)
}

// writer makes a guest keep writing, every so often (?every=10ms), or stop.
func (c control) writer(r *http.Request) (any, error) {
	l, v, err := c.lab(r)
	if err != nil {
		return nil, err
	}
	on, err := state(r)
	if err != nil {
		return nil, err
	}
	l.stopWriters(func(vm ref) bool { return vm == v.ref })
	if !on {
		return v, nil
	}
	every := 10 * time.Millisecond
	if s := r.URL.Query().Get("every"); s != "" {
		if every, err = time.ParseDuration(s); err != nil || every <= 0 {
			return nil, bad("every=%s is not a duration", s)
		}
	}
	_, err = l.KeepWriting(v.Moid, every)
	return v, err
}

func (c control) resetChanges(r *http.Request) (any, error) {
	l, v, err := c.lab(r)
	if err != nil {
		return nil, err
	}
	return v, l.ResetChanges(v.Moid)
}

func (c control) expireSessions(r *http.Request) (any, error) {
	for _, l := range c.chosen(r) {
		l.ExpireSessions()
	}
	return struct{}{}, nil
}

func (c control) listFaults(r *http.Request) (any, error) {
	all := []Fault{}
	for _, l := range c.chosen(r) {
		all = append(all, l.Armed()...)
	}
	return map[string]any{"kinds": Faults(), "armed": all}, nil
}

func (c control) armFault(r *http.Request) (any, error) {
	var f Fault
	if err := decodeBody(r, &f); err != nil {
		return nil, err
	}
	for _, l := range c.chosen(r) {
		if err := l.Arm(f); err != nil {
			return nil, bad("%w", err)
		}
	}
	return f, nil
}

func (c control) clearFaults(r *http.Request) (any, error) {
	for _, l := range c.chosen(r) {
		l.ClearFaults()
	}
	return struct{}{}, nil
}

func (c control) listTasks(r *http.Request) (any, error) {
	all := []Task{}
	for _, l := range c.chosen(r) {
		all = append(all, l.Tasks()...)
	}
	return all, nil
}

func decodeBody(r *http.Request, v any) error {
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err == nil {
		err = unmarshalStrict(b, v)
	}
	if err != nil {
		return bad("the body is not what is expected: %w", err)
	}
	return nil
}

func unmarshalStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(v)
}
