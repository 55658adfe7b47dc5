package vsphere

import (
	"strconv"
	"strings"
)

// markerPrefix begins the name of everything that a kura makes in a vcenter.
const markerPrefix = "kura:"

// marker is "kura:<installation>:<job>:<attempt>", taken apart.
type marker struct {
	installation, job string
	attempt           int
}

func parseMarker(s string) (marker, bool) {
	rest, ok := strings.CutPrefix(s, markerPrefix)
	p := strings.Split(rest, ":")
	if !ok || len(p) != 3 || p[0] == "" || p[1] == "" {
		return marker{}, false
	}
	n, err := strconv.Atoi(p[2])
	if err != nil || n < 0 {
		return marker{}, false
	}
	return marker{installation: p[0], job: p[1], attempt: n}, true
}

func isMarker(s string) bool {
	_, ok := parseMarker(s)
	return ok
}

// fileName is the marker in characters that every datastore takes.
func (m marker) fileName() string {
	return "kura-" + m.job + "-" + strconv.Itoa(m.attempt)
}
