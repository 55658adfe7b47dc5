package repository

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// mountOf tells the host, and the path there, of the network file system that a
// folder is mounted from; "" when it lies on a disk of this machine.
func mountOf(folder string) (host, path string) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", ""
	}
	defer func() { _ = f.Close() }() // it was only read
	if target, err := filepath.EvalSymlinks(folder); err == nil {
		folder = target
	}
	longest := -1
	for lines := bufio.NewScanner(f); lines.Scan(); {
		at, kind, source, ok := mountLine(lines.Text())
		below, within := strings.CutPrefix(folder+"/", strings.TrimSuffix(at, "/")+"/")
		if !ok || !within || len(at) < longest {
			continue
		}
		longest = len(at)
		host, path = remoteSource(kind, source, strings.TrimSuffix(below, "/"))
	}
	return host, path
}

// mountLine reads a line of mountinfo: where, what and from where.
func mountLine(line string) (at, kind, source string, ok bool) {
	left, right, found := strings.Cut(line, " - ")
	fields, more := strings.Fields(left), strings.Fields(right)
	if !found || len(fields) < 5 || len(more) < 2 {
		return "", "", "", false
	}
	return unoctal(fields[4]), more[0], unoctal(more[1]), true
}

// unoctal reads \040 and the like, as which spaces are written.
func unoctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// remoteSource takes host:/path of NFS and //host/path of SMB apart.
func remoteSource(kind, source, below string) (host, path string) {
	switch {
	case strings.HasPrefix(kind, "nfs"):
		host, path, _ = strings.Cut(source, ":/")
	case kind == "cifs" || kind == "smb3":
		host, path, _ = strings.Cut(strings.TrimPrefix(source, "//"), "/")
	default:
		return "", ""
	}
	return strings.Trim(host, "[]"), "/" + strings.Trim(path+"/"+below, "/")
}
