package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// export is what the server told of what it serves.
type export struct {
	size       int64
	flags      uint16
	least      int64 // requests are multiples of it
	most       int64 // bytes of data in a request
	structured bool
	allocation bool   // it tells which parts are zero
	context    uint32 // the number by which it does
}

// handshake is the fixed newstyle negotiation.
type handshake struct {
	in  *bufio.Reader
	out io.Writer
}

// run comes to an agreement about the export of that name.
func (h *handshake) run(name string) (e export, err error) {
	if err := h.greet(); err != nil {
		return e, err
	}
	if e.structured, err = h.structured(); err != nil {
		return e, err
	}
	if e.structured {
		if e.allocation, e.context, err = h.allocation(name); err != nil {
			return e, err
		}
	}
	return e, h.open(name, &e)
}

func (h *handshake) greet() error {
	var head struct {
		Server, Option uint64
		Flags          uint16
	}
	if err := binary.Read(h.in, binary.BigEndian, &head); err != nil {
		return whole(err)
	}
	if head.Server != magicServer || head.Option != magicOption {
		return violation("it greets with %016x %016x", head.Server, head.Option)
	}
	if head.Flags&serverFixed == 0 {
		return violation("it knows no fixed newstyle handshake")
	}
	// A client that says it wants no padding gets none at the end; options do not have any.
	return binary.Write(h.out, binary.BigEndian, uint32(head.Flags&(serverFixed|serverNoZeroes)))
}

func (h *handshake) ask(option uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := h.out.Write(append(b, data...))
	return err
}

// errRefused is the server's answer to an option that it does not take.
type errRefused struct {
	reply   uint32
	message string
}

func (r *errRefused) Error() string {
	what := fmt.Sprintf("refused with %08x", r.reply)
	switch r.reply {
	case repTLSRequired:
		what = "the server wants TLS"
	case repUnknown:
		what = "the server has no such export"
	case repUnsupported:
		what = "the server does not know the option"
	}
	if r.message != "" {
		what += ": " + r.message
	}
	return what
}

// answers calls fn with each reply to the option but the last, until the
// server acknowledges it, or refuses it with an errRefused.
func (h *handshake) answers(option uint32, fn func(kind uint32, data []byte) error) error {
	for range maxAnswers {
		var head struct {
			Magic              uint64
			Option, Kind, Size uint32
		}
		if err := binary.Read(h.in, binary.BigEndian, &head); err != nil {
			return whole(err)
		}
		if head.Magic != magicOptionRep || head.Option != option || head.Size > maxOption {
			return violation("it answers option %d with %016x %d of %d bytes", option, head.Magic, head.Option, head.Size)
		}
		data := make([]byte, head.Size)
		if _, err := io.ReadFull(h.in, data); err != nil {
			return whole(err)
		}
		switch {
		case head.Kind == repAck:
			return nil
		case head.Kind&repError != 0:
			return &errRefused{head.Kind, string(data)}
		}
		if err := fn(head.Kind, data); err != nil {
			return err
		}
	}
	return violation("it answers option %d without end", option)
}

func (h *handshake) structured() (bool, error) {
	if err := h.ask(optStructured, nil); err != nil {
		return false, err
	}
	return offered(h.answers(optStructured, func(kind uint32, _ []byte) error {
		return violation("it answers the wish for structured replies with %d", kind)
	}))
}

// offered makes of a refusal a mere no.
func offered(err error) (bool, error) {
	if refused, ok := errors.AsType[*errRefused](err); ok && refused.reply != repTLSRequired {
		return false, nil
	}
	return err == nil, err
}

// allocation asks to be told which parts of the export are zero.
func (h *handshake) allocation(name string) (can bool, context uint32, err error) {
	data := appendString(nil, name)
	data = appendString(binary.BigEndian.AppendUint32(data, 1), allocation)
	if err := h.ask(optSetMetaContext, data); err != nil {
		return false, 0, err
	}
	found := false
	can, err = offered(h.answers(optSetMetaContext, func(kind uint32, data []byte) error {
		if kind != repMetaContext || len(data) < 4 || string(data[4:]) != allocation || found {
			return violation("it answers the wish for %s with %d, %q", allocation, kind, data)
		}
		found, context = true, binary.BigEndian.Uint32(data)
		return nil
	}))
	return can && found, context, err
}

// open ends the negotiation: after it, requests follow.
func (h *handshake) open(name string, e *export) error {
	data := appendString(nil, name)
	data = binary.BigEndian.AppendUint16(data, 1)
	if err := h.ask(optGo, binary.BigEndian.AppendUint16(data, infoBlockSize)); err != nil {
		return err
	}
	e.size, e.least, e.most = -1, 1, maxBlock
	err := h.answers(optGo, func(kind uint32, data []byte) error {
		if kind != repInfo || len(data) < 2 {
			return violation("it answers the wish to begin with %d of %d bytes", kind, len(data))
		}
		return e.take(binary.BigEndian.Uint16(data), data[2:])
	})
	if err != nil {
		return err
	}
	if e.size < 0 {
		return violation("it does not tell the size of the export")
	}
	return nil
}

// take notes a fact of the export.
func (e *export) take(info uint16, data []byte) error {
	switch info {
	case infoExport:
		if len(data) != 10 {
			return violation("it tells the export in %d bytes", len(data))
		}
		size := binary.BigEndian.Uint64(data)
		if size > math.MaxInt64 {
			return violation("the export has %d bytes", size)
		}
		e.size, e.flags = int64(size), binary.BigEndian.Uint16(data[8:])
		if e.flags&flagPresent == 0 {
			return violation("the export's flags are %04x", e.flags)
		}
	case infoBlockSize:
		if len(data) != 12 {
			return violation("it tells the sizes of blocks in %d bytes", len(data))
		}
		least, most := binary.BigEndian.Uint32(data), binary.BigEndian.Uint32(data[8:])
		if least == 0 || least > 64<<10 || least&(least-1) != 0 || most < least {
			return violation("its blocks have %d to %d bytes", least, most)
		}
		e.least = int64(least)
		e.most = min(int64(most), maxBlock) / e.least * e.least
	}
	return nil
}

func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// whole tells an end in the middle of something from a good end.
func whole(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
