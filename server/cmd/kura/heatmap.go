package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/kura-backup/terraform-provider-kura/server/api"
)

// wantsColour says whether colours are of use to who reads w.
func wantsColour(w io.Writer, getenv func(string) string) bool {
	f, ok := w.(*os.File)
	return ok && isTerminal(f) && colourAllowed(getenv)
}

// colourAllowed says whether a terminal's user wants colours (see no-color.org).
func colourAllowed(getenv func(string) string) bool {
	return getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"
}

// The looks of a terminal of 256 colours: black on a ramp from green over
// yellow to red, and what stands out of it.
const (
	plain      = "\x1b[0m"
	overBooked = "\x1b[1;38;5;231;48;5;53m"
	faint      = "\x1b[2m"
)

var ramp = [...]int{40, 76, 112, 148, 184, 220, 214, 208, 202, 196}

// heatMap is the hours of some days as lines of cells.
type heatMap struct {
	slots  []api.Timeslot // in their order, in one location
	colour bool
	width  int // of a cell's number
}

func newHeatMap(slots []api.Timeslot, colour bool) heatMap {
	m := heatMap{slots: slots, colour: colour, width: 2}
	for _, s := range slots {
		m.width = max(m.width, len(number(s)))
	}
	return m
}

// number is a cell's: the free seats, below zero where more are booked than
// there are.
func number(s api.Timeslot) string { return strconv.Itoa(s.Capacity - s.Used) }

// labelWidth is that of what stands before the cells; a line of 24 hours with
// two digits then fits into 80 columns.
const labelWidth = 7

// draw returns the map: a head for each month, a line for each day, and one
// more for what occurs twice.
func (m heatMap) draw() string {
	var out strings.Builder
	month := ""
	skipped := false
	for from := 0; from < len(m.slots); {
		start := m.slots[from].StartsAt
		to := from
		for to < len(m.slots) && sameDay(m.slots[to].StartsAt, start) {
			to++
		}
		if head := start.Format("2006-01"); head != month {
			month = head
			out.WriteString("\n" + m.head(head))
		}
		lines, gap := m.day(m.slots[from:to])
		out.WriteString(lines)
		skipped = skipped || gap
		from = to
	}
	return out.String() + "\n" + m.legend(skipped)
}

func sameDay(a, b time.Time) bool {
	ay, am, ad := a.Date()
	by, bm, bd := b.Date()
	return ay == by && am == bm && ad == bd
}

func (m heatMap) head(label string) string {
	var line strings.Builder
	fmt.Fprintf(&line, "%-*s", labelWidth, label)
	for h := range 24 {
		fmt.Fprintf(&line, "%*s", m.width+1, fmt.Sprintf("%02d", h))
	}
	return line.String() + "\n"
}

// day draws the hours of one day, and says whether one of them is skipped.
func (m heatMap) day(slots []api.Timeslot) (lines string, gap bool) {
	var first, second [24]*api.Timeslot
	doubled := false
	for i, s := range slots {
		if h := s.StartsAt.Hour(); first[h] == nil {
			first[h] = &slots[i]
		} else {
			second[h], doubled = &slots[i], true
		}
	}
	day := slots[0].StartsAt
	var empty [24]string
	for h := range empty {
		if empty[h] = "."; skips(day, h) {
			empty[h], gap = "-", true
		}
	}
	lines = m.line(day.Format("Mon 02"), first, empty)
	if doubled {
		lines += m.line(" again", second, [24]string{})
	}
	return lines, gap
}

// skips says whether the clock of the day's zone leaves the hour out.
func skips(day time.Time, hour int) bool {
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, 0, 0, 0, day.Location())
	return t.Hour() != hour || t.Minute() != 0
}

func (m heatMap) line(label string, hours [24]*api.Timeslot, empty [24]string) string {
	line := fmt.Sprintf("%-*s", labelWidth, label)
	for h, s := range hours {
		if s != nil {
			line += m.cell(*s)
			continue
		}
		text := fmt.Sprintf("%*s", m.width+1, empty[h])
		if m.colour && empty[h] != "" {
			text = faint + text + plain
		}
		line += text
	}
	return strings.TrimRight(line, " ") + "\n"
}

// cell is a mark and a number.
func (m heatMap) cell(s api.Timeslot) string {
	mark := " "
	switch {
	case s.OverBooked:
		mark = "!"
	case s.Recommended:
		mark = "*"
	}
	text := fmt.Sprintf("%*s", m.width+1, mark+number(s))
	if !m.colour {
		return text
	}
	return look(s) + text + plain
}

// look is the colour of a slot. The last one of the ramp is for full hours only.
func look(s api.Timeslot) string {
	if s.OverBooked {
		return overBooked
	}
	load := 0
	if s.Capacity > 0 {
		load = min(len(ramp)-1, s.Used*(len(ramp)-1)/s.Capacity)
	}
	style := fmt.Sprintf("38;5;16;48;5;%dm", ramp[load])
	if s.Recommended {
		style = "1;4;" + style
	}
	return "\x1b[" + style
}

// legend explains what the map shows.
func (m heatMap) legend(skipped bool) string {
	marks := "* recommended, the emptiest of its day   ! over-booked, by as many   . not listed"
	if skipped {
		marks += "   - skipped by the clock"
	}
	if !m.colour {
		return marks + "\n"
	}
	scale := "empty "
	for _, c := range ramp {
		scale += fmt.Sprintf("\x1b[48;5;%dm  %s", c, plain)
	}
	return scale + " full   " + overBooked + " ! " + plain + " over-booked\n" + marks + "\n"
}
