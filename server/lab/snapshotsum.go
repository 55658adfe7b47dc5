package lab

import (
	"context"
	"fmt"
	"strings"
)

// SnapshotSHA256 is the checksum of a disk as a snapshot of the VM froze it, in
// hex. The VM must have exactly one snapshot.
func (l *Lab) SnapshotSHA256(ctx context.Context, id string, key int32) (string, error) {
	v, err := l.index.find(id)
	if err != nil {
		return "", err
	}
	list := l.snapshotsOf(v.ref)
	if len(list) != 1 {
		return "", fmt.Errorf("VM %s has %d snapshots (%s), want one", v.Name, len(list), strings.Join(v.Snapshots, ", "))
	}
	k := list[0].links[key]
	if k == nil {
		return "", fmt.Errorf("disk %d is not in the snapshot of VM %s", key, v.Name)
	}
	return k.sum(ctx)
}
