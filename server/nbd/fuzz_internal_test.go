package nbd

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"io"
	"net"
	"testing"
)

// deaf is a connection whose writes go nowhere.
type deaf struct{ net.Conn }

func (deaf) Write(p []byte) (int, error) { return len(p), nil }
func (deaf) Close() error                { return nil }

// FuzzReplies: whatever a server sends, all requests end, and one that ends
// well has all that it asked for.
func FuzzReplies(f *testing.F) {
	for _, seed := range []string{
		"668e33ef0001000100000000000000010000000a00000000000000106162", // data
		"668e33ef00010002000000000000000100000000c0000000000000010002", // a hole
		"668e33ef000100050000000000000002000000140000002a000000100000000300000010000000006744669800000000000000000000000367446698000000050000000000000004",
		"668e33ef00018001000000000000000100000008000000050002686900000000",
	} {
		b, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, true)
		f.Add(b, false)
	}
	f.Fuzz(func(t *testing.T, sent []byte, structured bool) {
		c := &Conn{net: deaf{}, waiting: map[uint64]*request{}, done: make(chan struct{}),
			export: export{size: 1 << 20, least: 1, most: maxBlock, structured: structured, allocation: structured, context: 42}}
		all := []*request{
			{command: cmdRead, off: 16, n: 2, data: make([]byte, 2)},
			{command: cmdBlockStatus, off: 0, n: 32},
			{command: cmdWrite, off: 0, n: 4, data: make([]byte, 4)},
			{command: cmdFlush},
		}
		for _, r := range all {
			r.done = make(chan struct{})
			if _, err := c.register(r); err != nil {
				t.Fatal(err)
			}
		}
		c.receive(bufio.NewReader(bytes.NewReader(sent)))
		for _, r := range all {
			select {
			case <-r.done:
			default:
				t.Fatalf("a %s waits for ever", r)
			}
			if r.err != nil {
				continue
			}
			if r.command == cmdRead && (len(r.seen) == 0 || r.seen[0].off != 16 || r.seen[len(r.seen)-1].end != 18) {
				t.Errorf("a read ended well with %v", r.seen)
			}
			at := r.off
			for _, e := range r.extents {
				if e.Off != at || e.N <= 0 {
					t.Errorf("extents %v", r.extents)
				}
				at += e.N
			}
			if r.command == cmdBlockStatus && at == r.off {
				t.Error("a look at extents ended well with none")
			}
		}
	})
}

// FuzzHandshake: whatever a server says, there is an error or an export that can be.
func FuzzHandshake(f *testing.F) {
	f.Add([]byte("NBDMAGICIHAVEOPT\x00\x03"))
	f.Add([]byte("NBDMAGICIHAVEOPT\x00\x03" +
		"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x08\x80\x00\x00\x01\x00\x00\x00\x00" +
		"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0c\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x01" +
		"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x03\x00\x00\x00\x0e\x00\x03\x00\x00\x02\x00\x00\x00\x10\x00\x00\x01\x00\x00" +
		"\x00\x03\xe8\x89\x04\x55\x65\xa9\x00\x00\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		h := handshake{in: bufio.NewReader(bytes.NewReader(sent)), out: io.Discard}
		e, err := h.run("disk")
		if err == nil && (e.size < 0 || e.least < 1 || e.most < e.least || e.most%e.least != 0 || e.allocation && !e.structured) {
			t.Errorf("export %+v", e)
		}
	})
}
