package vsphere

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Device names a disk that vSphere has attached to the VM in which this server runs.
type Device struct {
	UUID     string // of the disk's backing, as vSphere writes it
	Writable bool
}

// DeviceOpener opens disks that are attached to this server's own VM. It is
// the seam between a real guest and the lab's.
type DeviceOpener interface {
	// OpenDevice opens a disk for reading, or for both. One that the guest does
	// not show yet is fs.ErrNotExist.
	OpenDevice(ctx context.Context, d Device) (OpenDevice, error)
}

// OpenDevice is an open disk.
type OpenDevice interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Size() (int64, error)
	// Sync makes what was written last.
	Sync() error
}

// DeviceFunc is a [DeviceOpener] of one function.
type DeviceFunc func(ctx context.Context, d Device) (OpenDevice, error)

// OpenDevice implements [DeviceOpener].
func (f DeviceFunc) OpenDevice(ctx context.Context, d Device) (OpenDevice, error) { return f(ctx, d) }

// ByID opens disks by the links that udev makes for their UUIDs.
type ByID struct {
	Dir string // default /dev/disk/by-id
}

// OpenDevice implements [DeviceOpener]. A disk that is going to be written is
// claimed alone, so that one which LVM, multipath or a mount of this machine
// has taken is refused.
func (b ByID) OpenDevice(_ context.Context, d Device) (OpenDevice, error) {
	dir := b.Dir
	if dir == "" {
		dir = "/dev/disk/by-id"
	}
	id := strings.ToLower(strings.ReplaceAll(d.UUID, "-", ""))
	if len(id) != 32 || strings.Trim(id, "0123456789abcdef") != "" {
		return nil, fmt.Errorf("%q is no UUID of a disk", d.UUID)
	}
	flags := os.O_RDONLY
	if d.Writable {
		flags = os.O_RDWR | os.O_EXCL
	}
	for _, name := range []string{"wwn-0x" + id, "scsi-3" + id} {
		f, err := os.OpenFile(filepath.Join(dir, name), flags, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open the disk %s: %w", d.UUID, err)
		}
		adviseRandom(f)
		return blockDevice{f}, nil
	}
	return nil, fmt.Errorf("no disk %s in %s: %w", d.UUID, dir, fs.ErrNotExist)
}

// blockDevice is a block device, or a file that stands for one.
type blockDevice struct{ *os.File }

// Size implements [OpenDevice]: a block device's own is where it ends.
func (b blockDevice) Size() (int64, error) { return b.Seek(0, io.SeekEnd) }

// productSerial is where Linux shows the serial number that vSphere gives a
// VM: its UUID, in an order that is the same in all versions of the hardware.
const productSerial = "/sys/class/dmi/id/product_serial"

// OwnUUID is the SMBIOS UUID of the VM in which this program runs; "" where it
// runs in none of vSphere's, or may not look.
func OwnUUID() string {
	b, err := os.ReadFile(productSerial)
	if err != nil {
		return ""
	}
	return uuidOfSerial(string(b))
}

// uuidOfSerial reads "VMware-42 06 65 a2 a1 10 97 f5-cb 5c 3c 7f cb 6b 3d 3b".
func uuidOfSerial(s string) string {
	hex, ok := strings.CutPrefix(strings.TrimSpace(s), "VMware-")
	hex = strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(hex))
	if !ok || len(hex) != 32 || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:]
}

// openDevice waits until the guest shows a disk that was attached, opens it and makes
// sure that it is as large as it should be: a wrong one must not be read, let alone written.
func (s *Session) openDevice(ctx context.Context, d writeDisk, writable bool) (OpenDevice, error) {
	began := time.Now()
	for n := 0; ; n++ {
		dev, err := s.config.Devices.OpenDevice(ctx, Device{UUID: d.UUID, Writable: writable})
		if err == nil {
			size, err := dev.Size()
			if err == nil && size != d.Capacity {
				err = fmt.Errorf("the device that is found for it has %d bytes, not %d", size, d.Capacity)
			}
			if err != nil {
				_ = dev.Close() // it was not used
				return nil, fmt.Errorf("open %q: %w", d.Label, err)
			}
			return dev, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open %q: %w", d.Label, err)
		}
		if !s.pause(ctx, n, began, s.config.DeviceWait) {
			return nil, fmt.Errorf("open %q: it was attached, but did not show up in kura's VM within %s: %w", d.Label, s.config.DeviceWait, errors.Join(ctx.Err(), err))
		}
	}
}
