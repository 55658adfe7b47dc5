package handler

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kura-backup/terraform-provider-kura/server/backup"
)

// soundJSON refuses what one decoder reads otherwise than another, so that what
// is checked against the contract is what is done: text that is no UTF-8,
// anything after the value's end, and names that an object has twice. A zero
// byte is refused too: no database and no vSphere keeps it in a text.
func soundJSON(body []byte) *backup.Error {
	if !utf8.Valid(body) {
		return backup.Errorf(backup.Invalid, "", "The body is not valid UTF-8.")
	}
	if err := json.Unmarshal(body, new(json.RawMessage)); err != nil {
		return backup.Errorf(backup.Invalid, "", "The body is not valid JSON: %s.", jsonFault(err))
	}
	w := walk{d: json.NewDecoder(bytes.NewReader(body))}
	w.d.UseNumber()
	for {
		token, err := w.d.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return backup.Errorf(backup.Invalid, "", "The body is not valid JSON: %s.", jsonFault(err))
		}
		if e := w.take(token); e != nil {
			return e
		}
	}
}

// placeOf is the path of the first string in a sound body that is that text.
func placeOf(body []byte, text string) string {
	w := walk{d: json.NewDecoder(bytes.NewReader(body))}
	w.d.UseNumber()
	for {
		token, err := w.d.Token()
		if err != nil || w.take(token) != nil {
			return ""
		}
		if token == text && !w.inName() {
			return w.field()
		}
	}
}

// walk goes through a JSON value.
type walk struct {
	d  *json.Decoder
	in []level // the objects and arrays around what comes next
}

type level struct {
	names map[string]bool // of an object's properties so far
	last  string          // of them
	named bool            // the next string is a value, not a name
	array bool
	items int // of an array so far
}

func (w *walk) take(token json.Token) *backup.Error {
	switch t := token.(type) {
	case json.Delim:
		if t == '}' || t == ']' {
			w.in = w.in[:len(w.in)-1]
			return nil
		}
		w.value()
		w.in = append(w.in, level{array: t == '[', names: map[string]bool{}})
		return nil
	case string:
		if k := len(w.in); k > 0 && !w.in[k-1].array && !w.in[k-1].named {
			return w.name(&w.in[k-1], t)
		}
		w.value()
		return w.text(t)
	}
	w.value()
	return nil
}

// inName says whether what was taken last is the name of a property.
func (w *walk) inName() bool {
	k := len(w.in)
	return k > 0 && w.in[k-1].named
}

// value notes that a value begins.
func (w *walk) value() {
	if k := len(w.in); k > 0 {
		w.in[k-1].items++
		w.in[k-1].named = false
	}
}

func (w *walk) name(l *level, name string) *backup.Error {
	twice := l.names[name]
	l.names[name], l.last, l.named = true, name, true
	if twice {
		return backup.Errorf(backup.Invalid, w.field(), "%s is there twice. Leave one of them out.", w.field())
	}
	return w.text(name)
}

func (w *walk) text(t string) *backup.Error {
	if strings.IndexByte(t, 0) < 0 {
		return nil
	}
	what := cmp.Or(w.field(), "The body")
	return backup.Errorf(backup.Invalid, w.field(), "%s holds a zero byte, which no text can have here. Leave it out.", what)
}

// field is the path of the value that was met last.
func (w *walk) field() string {
	var path []string
	for _, l := range w.in {
		switch {
		case l.array:
			path = append(path, strconv.Itoa(max(0, l.items-1)))
		case len(l.names) > 0:
			path = append(path, cmp.Or(l.last, `""`))
		}
	}
	return clip(strings.ReplaceAll(strings.Join(path, "."), "\x00", ""))
}
