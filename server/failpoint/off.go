//go:build !failpoints

package failpoint

// On says whether the places are compiled in.
const On = false

// Hit is a place at which a test may end or halt the process.
func Hit(string) {}

// Without says whether a test has taken a safeguard away, to see that this is
// found out.
func Without(string) bool { return false }
