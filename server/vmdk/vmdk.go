// Package vmdk reads and writes streamOptimized VMDKs, the form in which
// vSphere serves a disk (export) and takes one (import) over an NFC lease.
// Both sides are sequential: neither needs a file that can seek.
//
// It knows nothing of vSphere, leases or HTTP, opens no files, and handles no
// other kind of VMDK (flat, sparse with parents, delta).
package vmdk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// GrainSize is the unit in which this package writes: 64 KiB, as vSphere does.
const GrainSize = grainSectors * sectorSize

// MaxCapacity is the largest disk that is read or written, 1 PiB: vSphere ends at 62 TiB.
const MaxCapacity = int64(1) << 50

// ErrTruncated means that the stream ended before its end-of-stream marker: the disk is not whole.
var ErrTruncated = errors.New("the VMDK stream ended before its end-of-stream marker")

// ErrInvalid means that the bytes are not a streamOptimized VMDK, or are damaged.
var ErrInvalid = errors.New("not a sound streamOptimized VMDK")

const (
	sectorSize     = 512
	grainSectors   = 128
	tableEntries   = 512 // grains of one grain table
	tableSectors   = tableEntries * 4 / sectorSize
	overhead       = 128 // sectors before the first grain
	descriptorSize = 20  // sectors
	markerHead     = 12  // bytes of a grain's marker: sector number and length

	magic            = 0x564d444b
	flagNewline      = 1 << 0
	flagCompressed   = 1 << 16
	flagMarkers      = 1 << 17
	directoryAtEnd   = ^uint64(0)
	compressDeflate  = 1
	markEndOfStream  = 0
	markGrainTable   = 1
	markDirectory    = 2
	markFooter       = 3
	maxGrainSectors  = 2048     // 1 MiB, bounds what a header can make the reader allocate
	maxOverhead      = 1 << 24  // sectors
	maxMetaSectors   = 1 << 24  // of one metadata block; a directory of 1 PiB has 2^18
	maxTrailingBytes = 16 << 20 // what may follow the end of the stream
)

// header is the sparse extent header: the first sector of a stream, and its footer.
type header struct {
	Magic, Version, Flags                        uint32
	Capacity, GrainSize                          uint64
	DescriptorOffset, DescriptorSize             uint64
	TableEntries                                 uint32
	RedundantDirectory, Directory, Overhead      uint64
	Unclean, Newline, Space, Return, SecondBreak byte
	Compression                                  uint16
	_                                            [433]byte
}

func newHeader(capacity int64) header {
	return header{
		Magic: magic, Version: 3, Flags: flagNewline | flagCompressed | flagMarkers,
		Capacity: uint64(capacity / sectorSize), GrainSize: grainSectors,
		DescriptorOffset: 1, DescriptorSize: descriptorSize, TableEntries: tableEntries,
		Directory: directoryAtEnd, Overhead: overhead,
		Newline: '\n', Space: ' ', Return: '\r', SecondBreak: '\n', Compression: compressDeflate,
	}
}

func (h *header) encode() []byte {
	var b bytes.Buffer
	// A fixed-size struct into a buffer: neither can fail.
	_ = binary.Write(&b, binary.LittleEndian, h)
	return b.Bytes()
}

func decodeHeader(sector []byte) (header, error) {
	var h header
	if err := binary.Read(bytes.NewReader(sector), binary.LittleEndian, &h); err != nil {
		return h, fmt.Errorf("%w: header: %w", ErrInvalid, err)
	}
	switch {
	case h.Magic != magic:
		return h, fmt.Errorf("%w: magic %#x", ErrInvalid, h.Magic)
	case h.Flags&flagCompressed == 0 || h.Flags&flagMarkers == 0 || h.Compression != compressDeflate:
		return h, fmt.Errorf("%w: flags %#x, compression %d", ErrInvalid, h.Flags, h.Compression)
	case h.Version < 1 || h.Version > 3:
		return h, fmt.Errorf("%w: version %d", ErrInvalid, h.Version)
	case h.Capacity == 0 || h.Capacity > uint64(MaxCapacity/sectorSize):
		return h, fmt.Errorf("%w: capacity of %d sectors", ErrInvalid, h.Capacity)
	case h.GrainSize == 0 || h.GrainSize > maxGrainSectors || h.GrainSize&(h.GrainSize-1) != 0:
		return h, fmt.Errorf("%w: grains of %d sectors", ErrInvalid, h.GrainSize)
	case h.Overhead < 1 || h.Overhead > maxOverhead:
		return h, fmt.Errorf("%w: overhead of %d sectors", ErrInvalid, h.Overhead)
	}
	return h, nil
}

// descriptor is the text that names the extent and the disk's geometry.
func descriptor(capacity int64) string {
	const heads, sectors = 255, 63
	cylinders := min(capacity/sectorSize/(heads*sectors)+1, 65535)
	return fmt.Sprintf(`# Disk DescriptorFile
version=1
CID=fffffffe
parentCID=ffffffff
createType="streamOptimized"

# Extent description
RW %d SPARSE "disk.vmdk"

# The Disk Data Base
#DDB

ddb.virtualHWVersion = "10"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "%d"
ddb.geometry.sectors = "%d"
ddb.adapterType = "lsilogic"
`, capacity/sectorSize, cylinders, heads, sectors)
}

// IsZero says whether p holds only zeros.
func IsZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

var zeros [GrainSize]byte

func checkCapacity(capacity int64) error {
	if capacity <= 0 || capacity > MaxCapacity || capacity%sectorSize != 0 {
		return fmt.Errorf("a VMDK cannot have a capacity of %d bytes", capacity)
	}
	return nil
}
