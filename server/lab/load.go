package lab

import (
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// quickMillis is the latency of a datastore that nothing is amiss with.
const quickMillis = 2

// QueryPerf answers as vcsim does, and of hosts besides how slowly they see
// each datastore answer: in as much as the fault datastore_slow says.
func (r *router) QueryPerf(ctx *simulator.Context, q *types.QueryPerf) soap.HasFault {
	m, ok := ctx.Map.Get(q.This).(*simulator.PerformanceManager)
	if !ok {
		return &methods.QueryPerfBody{Fault_: simulator.Fault("there is no performance manager", &types.ManagedObjectNotFound{Obj: q.This})}
	}
	answer := m.QueryPerf(ctx, q)
	body, ok := answer.(*methods.QueryPerfBody)
	if !ok || body.Res == nil {
		return answer
	}
	for i, entity := range body.Res.Returnval {
		metric, ok := entity.(*types.PerfEntityMetric)
		if !ok || metric.Entity.Type != "HostSystem" {
			continue
		}
		own := metric.Value[:0:0]
		for _, asked := range q.QuerySpec[i].MetricId {
			own = append(own, r.l.latency(m, asked, len(metric.SampleInfo))...)
		}
		if len(own) > 0 {
			metric.Value = own
		}
	}
	return body
}

// latency is a series for each datastore, if that is what is asked for.
func (l *Lab) latency(m *simulator.PerformanceManager, asked types.PerfMetricId, n int) (all []types.BasePerfMetricSeries) {
	for _, c := range m.PerfCounter {
		name := c.NameInfo.GetElementDescription().Key
		if c.Key != asked.CounterId || c.GroupInfo.GetElementDescription().Key != "datastore" || name != "totalReadLatency" && name != "totalWriteLatency" {
			continue
		}
		for _, sp := range l.store.spaces {
			s := &types.PerfMetricIntSeries{PerfMetricSeries: types.PerfMetricSeries{Id: types.PerfMetricId{CounterId: c.Key, Instance: filepath.Base(sp.dir)}}}
			for range n {
				s.Value = append(s.Value, l.millis(sp.name))
			}
			all = append(all, s)
		}
	}
	return all
}

// millis is how slowly a datastore answers. Such a fault lasts until it is cleared.
func (l *Lab) millis(datastore string) int64 {
	slow := int64(quickMillis)
	for _, f := range l.faults.list() {
		if f.Kind == "datastore_slow" && (f.VM == "" || f.VM == datastore) {
			slow = max(slow, f.Delay.Milliseconds())
		}
	}
	return slow
}

// Occupy takes room on a datastore as others would, or gives it back where bytes is below 0.
func (l *Lab) Occupy(datastore string, bytes int64) {
	if sp := l.store.spaces[datastore]; sp != nil {
		sp.used.Add(bytes / blockSize)
	}
}
