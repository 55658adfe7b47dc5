package vsphere

import (
	"context"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// loads is what a session knows of where to ask for the load of datastores.
type loads struct {
	mu       sync.Mutex // guards what follows
	counters []int32    // of latency, which a vcenter numbers for itself; nil = not known yet
	stores   map[string]ref
	hosts    map[string]ref
	at       time.Time // when stores and hosts were read
}

// knownFor is how long names are known before they are read again.
const knownFor = 5 * time.Minute

// What is asked of a host: samples of 20 seconds, the last few.
const (
	sampleSeconds = 20
	samples       = 3
)

// DatastoreLoad implements [backup.VSphereSession].
func (s *Session) DatastoreLoad(ctx context.Context, host string, names []string) (map[string]backup.DatastoreLoad, error) {
	stores, hosts, err := s.loadPlaces(ctx)
	if err != nil {
		return nil, s.problem("read the datastores", err)
	}
	slow := map[string]time.Duration{}
	if h, there := hosts[host]; there {
		if slow, err = s.latencies(ctx, h); err != nil && ctx.Err() == nil { // space is known all the same
			s.log.WarnContext(ctx, "latency of datastores not read", "host", host, "error", err)
		}
	}
	out := map[string]backup.DatastoreLoad{}
	for _, name := range names {
		r, there := stores[name]
		if !there {
			continue
		}
		// The vCenter looks at the free space only now and then. An account that may
		// not have it look is shown what is known.
		if _, err := methods.RefreshDatastore(ctx, s.client, &types.RefreshDatastore{This: r}); err != nil && ctx.Err() == nil {
			s.log.DebugContext(ctx, "datastore not refreshed", "datastore", name, "error", err)
		}
		var d mo.Datastore
		if err := s.read(ctx, r, []string{"summary"}, &d); err != nil {
			return nil, s.problem("read the datastore "+name, err)
		}
		out[name] = backup.DatastoreLoad{Capacity: d.Summary.Capacity, Free: d.Summary.FreeSpace, Latency: slow[path.Base(strings.TrimSuffix(d.Summary.Url, "/"))]}
	}
	return out, nil
}

// loadPlaces are the datastores and hosts by name, as of a moment ago.
func (s *Session) loadPlaces(ctx context.Context) (stores, hosts map[string]ref, err error) {
	l := &s.loads
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stores != nil && time.Since(l.at) < knownFor {
		return l.stores, l.hosts, nil
	}
	found, err := s.survey(ctx, []string{"Datastore", "HostSystem"}, []types.PropertySpec{{Type: "Datastore", PathSet: []string{"name"}}, {Type: "HostSystem", PathSet: []string{"name"}}})
	if err != nil {
		return nil, nil, err
	}
	l.stores, l.hosts, l.at = map[string]ref{}, map[string]ref{}, time.Now()
	p := places{}
	for _, o := range found {
		p.takeProperties(o)
		of := l.stores
		if o.Obj.Type == "HostSystem" {
			of = l.hosts
		}
		of[p[o.Obj].name] = o.Obj
	}
	return l.stores, l.hosts, nil
}

// latencies tells how slowly a host sees datastores answer, by the last part of their address.
func (s *Session) latencies(ctx context.Context, host ref) (map[string]time.Duration, error) {
	ids, err := s.latencyCounters(ctx)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	spec := types.PerfQuerySpec{Entity: host, MaxSample: samples, IntervalId: sampleSeconds}
	for _, id := range ids {
		spec.MetricId = append(spec.MetricId, types.PerfMetricId{CounterId: id, Instance: "*"})
	}
	res, err := methods.QueryPerf(ctx, s.client, &types.QueryPerf{This: *s.client.ServiceContent.PerfManager, QuerySpec: []types.PerfQuerySpec{spec}})
	if err != nil {
		return nil, err
	}
	out := map[string]time.Duration{}
	for _, m := range res.Returnval {
		entity, ok := m.(*types.PerfEntityMetric)
		if !ok {
			continue
		}
		for _, v := range entity.Value {
			if series, ok := v.(*types.PerfMetricIntSeries); ok && len(series.Value) > 0 {
				out[series.Id.Instance] = max(out[series.Id.Instance], average(series.Value))
			}
		}
	}
	return out, nil
}

// average is that of samples in milliseconds. A sample below 0 is none.
func average(values []int64) time.Duration {
	var sum, n int64
	for _, v := range values {
		if v >= 0 {
			sum += v
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return time.Duration(sum) * time.Millisecond / time.Duration(n)
}

// latencyCounters finds the counters of the latency that hosts see.
func (s *Session) latencyCounters(ctx context.Context) ([]int32, error) {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	if s.loads.counters != nil {
		return s.loads.counters, nil
	}
	if s.client.ServiceContent.PerfManager == nil {
		return nil, nil
	}
	var m mo.PerformanceManager
	if err := s.read(ctx, *s.client.ServiceContent.PerfManager, []string{"perfCounter"}, &m); err != nil {
		return nil, err
	}
	ids := []int32{}
	for _, c := range m.PerfCounter {
		group, name := c.GroupInfo.GetElementDescription().Key, c.NameInfo.GetElementDescription().Key
		if group == "datastore" && (name == "totalReadLatency" || name == "totalWriteLatency") && c.RollupType == types.PerfSummaryTypeAverage {
			ids = append(ids, c.Key)
		}
	}
	s.loads.counters = ids
	return ids, nil
}
