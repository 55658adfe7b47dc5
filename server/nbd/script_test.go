package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/nbd"
)

const (
	simple     = uint32(0x67446698)
	structured = uint32(0x668e33ef)
	optionRep  = uint64(0x0003e889045565a9)
	done       = uint16(1)
)

// pack writes values one behind the other, as the protocol does.
func pack(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		if s, is := v.(string); is {
			v = []byte(s)
		}
		if err := binary.Write(&b, binary.BigEndian, v); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

var (
	greeting = pack("NBDMAGIC", "IHAVEOPT", uint16(3))
	agreed   = bytes.Join([][]byte{
		greeting,
		pack(optionRep, uint32(8), uint32(1), uint32(0)),
		pack(optionRep, uint32(10), uint32(4), uint32(19), uint32(42), "base:allocation"),
		pack(optionRep, uint32(10), uint32(1), uint32(0)),
		pack(optionRep, uint32(7), uint32(3), uint32(12), uint16(0), uint64(1<<20), uint16(0x4d)),
		pack(optionRep, uint32(7), uint32(1), uint32(0)),
	}, nil)
)

// scripted is a connection to a server that says what it is told, whatever it
// is asked: first the handshake, and after the first request the rest.
func scripted(t *testing.T, handshake, rest []byte) (*nbd.Conn, error) {
	t.Helper()
	ours, theirs := net.Pipe()
	asked := make(chan struct{})
	go func() { // it listens to all, and hears when a request has come
		var all bytes.Buffer
		p := make([]byte, 4096)
		for signalled := false; ; {
			n, err := theirs.Read(p)
			all.Write(p[:n])
			if !signalled && bytes.Contains(all.Bytes(), pack(uint32(0x25609513))) {
				signalled = true
				close(asked)
			}
			if err != nil {
				return
			}
		}
	}()
	go func() {
		_, _ = theirs.Write(handshake)
		<-asked
		_, _ = theirs.Write(rest)
		_ = theirs.Close()
	}()
	c, err := nbd.New(t.Context(), ours, nbd.Config{Stall: 20 * time.Second})
	t.Cleanup(func() {
		if err == nil {
			_ = c.Close()
		}
		_ = theirs.Close()
	})
	return c, err
}

// recorded is a connection on which a server has spoken, and listens no more.
type recorded struct {
	net.Conn
	from io.Reader
}

func (r recorded) Read(p []byte) (int, error) { return r.from.Read(p) }
func (recorded) Write(p []byte) (int, error)  { return len(p), nil }
func (recorded) Close() error                 { return nil }

func TestWhatBreaksTheProtocolEndsTheConnection(t *testing.T) {
	chunk := func(flags, kind uint16, content []byte) []byte {
		return append(pack(structured, flags, kind, uint64(1), uint32(len(content))), content...)
	}
	data := func(flags uint16, off uint64, n int) []byte {
		return chunk(flags, 1, append(pack(off), make([]byte, n)...))
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, rest := range map[string][]byte{
		"no reply at all":                         pack(uint32(7), make([]byte, 100)),
		"a reply to a request that nobody made":   pack(structured, done, uint16(0), uint64(99), uint32(0)),
		"a simple reply to a read":                pack(simple, uint32(0), uint64(1), make([]byte, 4096)),
		"an end without data":                     chunk(done, 0, nil),
		"less data than was asked for":            data(done, 8192, 4000),
		"data from before the range":              data(done, 8000, 4096),
		"data from behind the range":              data(done, 8192+4000, 4096),
		"data at a negative offset":               data(done, 1<<63, 4096),
		"the same bytes twice":                    join(data(0, 8192, 4096), data(done, 8192+4095, 1)),
		"an overlap that adds up":                 join(data(0, 8192, 2048), data(0, 8192+1024, 1024), data(done, 8192+3072, 1024)),
		"data without a byte":                     chunk(done, 1, pack(uint64(8192))),
		"a hole that is too long":                 chunk(done, 2, pack(uint64(8192), uint32(5000))),
		"a hole of nothing":                       chunk(done, 2, pack(uint64(8192), uint32(0))),
		"a hole of the wrong form":                chunk(done, 2, pack(uint64(8192))),
		"extents for a read":                      chunk(done, 5, pack(uint32(42), uint32(4096), uint32(0))),
		"a kind that nobody knows":                chunk(done, 77, nil),
		"an error that is none":                   chunk(done, 0x8001, pack(uint32(0), uint16(0))),
		"an error with a message beyond its end":  chunk(done, 0x8001, pack(uint32(5), uint16(500), "short")),
		"an error too short for a code":           chunk(done, 0x8001, pack(uint32(5))),
		"an error as long as a disk":              pack(structured, done, uint16(0x8001), uint64(1), uint32(1<<31)),
		"extents as long as a disk":               pack(structured, done, uint16(5), uint64(1), uint32(1<<31)),
		"nothing with something in it":            chunk(done, 0, pack(uint32(5))),
		"an answer and then one more":             join(data(done, 8192, 4096), data(done, 8192, 4096)),
		"the end of the connection in the middle": join(data(done, 8192, 4096))[:100],
	} {
		c, err := scripted(t, agreed, rest)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_, err = c.ReadAt(make([]byte, 4096), 8192)
		if err == nil { // what came behind it was wrong: the next one learns of it
			_, err = c.ReadAt(make([]byte, 4096), 8192)
		}
		if !errors.Is(err, nbd.ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: error = %v, want a violation", name, err)
		}
	}
}

func TestExtentsThatCannotBeAreAViolation(t *testing.T) {
	for name, content := range map[string][]byte{
		"of another context":           pack(uint32(41), uint32(4096), uint32(0)),
		"none":                         pack(uint32(42)),
		"half of one":                  pack(uint32(42), uint32(4096)),
		"of no bytes":                  pack(uint32(42), uint32(0), uint32(0)),
		"more than the range can hold": pack(uint32(42), uint32(8192), uint32(0), uint32(4096), uint32(3)),
	} {
		c, err := scripted(t, agreed, append(pack(structured, done, uint16(5), uint64(1), uint32(len(content))), content...))
		if err != nil {
			t.Fatal(err)
		}
		if all, err := c.Extents(0, 4096); !errors.Is(err, nbd.ErrProtocol) {
			t.Errorf("%s: extents = %v, %v", name, all, err)
		}
	}
}

func TestTheLastExtentMayReachBeyondWhatWasAskedFor(t *testing.T) {
	c, err := scripted(t, agreed, pack(structured, done, uint16(5), uint64(1), uint32(28), uint32(42),
		uint32(1024), uint32(3), uint32(1024), uint32(3), uint32(1<<19), uint32(1)))
	ok(t, err)
	all, err := c.Extents(0, 4096)
	ok(t, err)
	want := []nbd.Extent{{Off: 0, N: 2048, Hole: true, Zero: true}, {Off: 2048, N: 2048, Hole: true}}
	if len(all) != 2 || all[0] != want[0] || all[1] != want[1] {
		t.Errorf("extents = %v, want %v", all, want)
	}
}

func TestPiecesOfAnAnswerMayComeInAnyOrder(t *testing.T) {
	c, err := scripted(t, agreed, bytes.Join([][]byte{
		pack(structured, uint16(0), uint16(1), uint64(1), uint32(8+3), uint64(8192+5), "end"),
		pack(structured, uint16(0), uint16(2), uint64(1), uint32(12), uint64(8192+3), uint32(2)),
		pack(structured, done, uint16(1), uint64(1), uint32(8+3), uint64(8192), "all"),
	}, nil))
	ok(t, err)
	got := []byte("########")
	_, err = c.ReadAt(got, 8192)
	ok(t, err)
	if string(got) != "all\x00\x00end" {
		t.Errorf("read %q", got)
	}
}

func TestAnErrorInThePiecesIsTheRequestsAlone(t *testing.T) {
	c, err := scripted(t, agreed, bytes.Join([][]byte{
		pack(structured, uint16(0), uint16(1), uint64(1), uint32(8+4), uint64(0), "good"),
		pack(structured, uint16(0), uint16(0x8002), uint64(1), uint32(6+6+8), uint32(5), uint16(6), "broken", uint64(4)),
		pack(structured, done, uint16(0), uint64(1), uint32(0)),
		pack(structured, done, uint16(1), uint64(2), uint32(8+4), uint64(0), "next"),
	}, nil))
	ok(t, err)
	got := make([]byte, 8)
	if _, err := c.ReadAt(got, 0); code(err) != nbd.InputOutput || err.Error() != "read of 8 bytes at 0: input/output error: broken" {
		t.Errorf("error = %v", err)
	}
}

func TestAHandshakeThatIsNoneIsRefused(t *testing.T) {
	old := pack("NBDMAGIC", uint64(0x00420281861253), uint64(1<<20), uint32(1))
	noSize := bytes.Join([][]byte{
		greeting, pack(optionRep, uint32(8), uint32(0x80000001), uint32(0)), pack(optionRep, uint32(7), uint32(1), uint32(0)),
	}, nil)
	endless := append(bytes.Clone(greeting), pack(optionRep, uint32(8), uint32(1), uint32(0))...)
	for range 2000 {
		endless = append(endless, pack(optionRep, uint32(10), uint32(4), uint32(19), uint32(42), "base:allocation")...)
	}
	for name, h := range map[string][]byte{
		"of another protocol":      []byte("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"),
		"of the old style":         old,
		"not fixed":                pack("NBDMAGIC", "IHAVEOPT", uint16(0)),
		"cut off":                  agreed[:50],
		"without a size":           noSize,
		"that does not end":        endless,
		"with an answer too long":  append(bytes.Clone(greeting), pack(optionRep, uint32(8), uint32(1), uint32(1<<30))...),
		"with another's answer":    append(bytes.Clone(greeting), pack(optionRep, uint32(7), uint32(1), uint32(0))...),
		"with an unexpected reply": append(bytes.Clone(greeting), pack(optionRep, uint32(8), uint32(2), uint32(0))...),
	} {
		if _, err := nbd.New(t.Context(), recorded{from: bytes.NewReader(h)}, nbd.Config{}); !errors.Is(err, nbd.ErrProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a handshake %s: %v, want a violation", name, err)
		}
	}
}

func TestAnExportThatIsNotThereIsNamed(t *testing.T) {
	h := bytes.Join([][]byte{
		greeting, pack(optionRep, uint32(8), uint32(0x80000001), uint32(0)), pack(optionRep, uint32(7), uint32(0x80000006), uint32(4), "gone"),
	}, nil)
	if _, err := nbd.New(t.Context(), recorded{from: bytes.NewReader(h)}, nbd.Config{}); err == nil || err.Error() != "nbd handshake: the server has no such export: gone" {
		t.Errorf("error = %v", err)
	}
}
