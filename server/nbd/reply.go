package nbd

import (
	"bufio"
	"encoding/binary"
	"io"
)

// replies takes one reply after the other until the connection or the protocol ends.
func (c *Conn) replies(in *bufio.Reader) error {
	for {
		magic, err := readUint32(in)
		if err != nil {
			return whole(err)
		}
		switch {
		case magic == magicSimple:
			err = c.simple(in)
		case magic == magicStructured && c.export.structured:
			err = c.chunk(in)
		default:
			err = violation("a reply begins with %08x", magic)
		}
		if err != nil {
			return whole(err)
		}
	}
}

// simple takes a reply of the old form.
func (c *Conn) simple(in *bufio.Reader) error {
	var head [12]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	code, cookie := Code(binary.BigEndian.Uint32(head[:])), binary.BigEndian.Uint64(head[4:])
	r, err := c.waits(cookie)
	if err != nil {
		return err
	}
	if c.export.structured && (r.command == cmdRead || r.command == cmdBlockStatus && code == 0) || r.seen != nil || r.extents != nil {
		return violation("a simple reply to a %s", r)
	}
	switch {
	case code != 0:
		r.refuse(code, "")
	case r.command == cmdRead:
		if err := r.fill(in, r.off, r.n); err != nil {
			return err
		}
	}
	return c.release(cookie, r)
}

// chunk takes a part of a structured reply.
func (c *Conn) chunk(in *bufio.Reader) error {
	var head [16]byte
	if _, err := io.ReadFull(in, head[:]); err != nil {
		return err
	}
	flags, kind := binary.BigEndian.Uint16(head[:]), binary.BigEndian.Uint16(head[2:])
	cookie, size := binary.BigEndian.Uint64(head[4:]), binary.BigEndian.Uint32(head[12:])
	r, err := c.waits(cookie)
	if err != nil {
		return err
	}
	if err := c.content(in, r, kind, size); err != nil {
		return err
	}
	if flags&replyDone == 0 {
		return nil
	}
	return c.release(cookie, r)
}

// content takes what a chunk holds.
func (c *Conn) content(in *bufio.Reader, r *request, kind uint16, size uint32) error {
	switch {
	case kind == chunkNone && size == 0:
		return nil
	case kind == chunkData && size > 8:
		off, err := readOffset(in)
		if err != nil {
			return err
		}
		return r.fill(in, off, int64(size)-8)
	case kind == chunkHole && size == 12:
		return r.hole(in)
	case kind == chunkStatus && size <= maxStatus:
		data := make([]byte, size)
		if _, err := io.ReadFull(in, data); err != nil {
			return err
		}
		return r.take(data, c.export.context)
	case kind == chunkError || kind == chunkErrorOffset || kind >= chunkError && size <= maxMessage:
		return r.failure(in, size)
	}
	return violation("a chunk of kind %d with %d bytes answers a %s", kind, size, r)
}

// fill reads data into the caller's buffer.
func (r *request) fill(in *bufio.Reader, off, n int64) error {
	if err := r.cover(off, n); err != nil {
		return err
	}
	_, err := io.ReadFull(in, r.data[off-r.off:off-r.off+n])
	return err
}

func (r *request) hole(in *bufio.Reader) error {
	off, err := readOffset(in)
	if err != nil {
		return err
	}
	n, err := readUint32(in)
	if err != nil {
		return err
	}
	if err := r.cover(off, int64(n)); err != nil {
		return err
	}
	clear(r.data[off-r.off : off-r.off+int64(n)])
	return nil
}

// failure reads why the server refuses the request. The rest of its answer may still come.
func (r *request) failure(in *bufio.Reader, size uint32) error {
	if size < 6 || size > maxMessage {
		return violation("an error of %d bytes answers a %s", size, r)
	}
	data := make([]byte, size)
	if _, err := io.ReadFull(in, data); err != nil {
		return err
	}
	code, n := Code(binary.BigEndian.Uint32(data)), int(binary.BigEndian.Uint16(data[4:]))
	if code == 0 || n > len(data)-6 {
		return violation("error %d with a message of %d bytes in %d answers a %s", uint32(code), n, size, r)
	}
	r.refuse(code, string(data[6:6+n]))
	return nil
}

// refuse notes the first reason of several.
func (r *request) refuse(code Code, message string) {
	if r.refused.Code == 0 {
		r.refused = Error{Op: r.op(), Off: r.off, N: r.n, Code: code, Message: message}
	}
}

// waits finds the request that a reply is for.
func (c *Conn) waits(cookie uint64) (*request, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r, ok := c.waiting[cookie]; ok {
		return r, nil
	}
	return nil, violation("a reply to request %d, which does not wait", cookie)
}

// release gives a request its answer. One that is against the protocol stays,
// and gets the reason for which the connection ends.
func (c *Conn) release(cookie uint64, r *request) error {
	if err := r.conclude(); err != nil {
		return err
	}
	c.mu.Lock()
	delete(c.waiting, cookie)
	c.mu.Unlock()
	r.finish(r.answer())
	return nil
}

func readUint32(in *bufio.Reader) (uint32, error) {
	var b [4]byte
	_, err := io.ReadFull(in, b[:])
	return binary.BigEndian.Uint32(b[:]), err
}

func readOffset(in *bufio.Reader) (int64, error) {
	var b [8]byte
	_, err := io.ReadFull(in, b[:])
	return int64(binary.BigEndian.Uint64(b[:])), err
}
