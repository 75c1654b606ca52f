package logbook

import "kmp2mqtt/kmp"

const (
	// largest is how many bytes of data an answer may have: 9 s at 1200 baud. A larger
	// one would save little, and a live reading may be waiting for the line.
	largest = 1024
	// growAfter good answers after another make requests larger again that damage made
	// smaller. Each time that this ends in damage it takes twice as many, up to growAtMost:
	// a head that sits badly for good shall not cost a failed request every few rows.
	growAfter  = 5
	growAtMost = 80

	pageHeader     = 15 // bytes of an answer before its rows
	registerHeader = 5  // bytes before each value of the first row
	usualWidth     = 4  // bytes of a value, as a rule
)

// fit is how much fits into an answer, by what came.
type fit struct {
	size   int            // registers in a request, 1 to most
	most   int            // what the meter answers for at most, 8 unless it cut some off
	buffer int            // bytes of the longest answer that the meter cut off; 0: none was
	room   int            // bytes that come through where longer answers were damaged; 0: no bound
	good   int            // answers since requests changed
	need   int            // how many of them make requests larger
	grown  bool           // they were made larger, and whether that works is not known yet
	width  map[uint16]int // bytes of a register's value
}

func newFit() fit {
	return fit{size: kmp.MaxRegisters, most: kmp.MaxRegisters, need: growAfter, width: map[uint16]int{regDateTime: 7}}
}

// length is how many bytes of data an answer has.
func (f *fit) length(ids []uint16, rows int) int {
	return pageHeader + registerHeader*len(ids) + rows*f.rowWidth(ids)
}

func (f *fit) rowWidth(ids []uint16) (width int) {
	for _, id := range ids {
		if w, ok := f.width[id]; ok {
			width += w
		} else {
			width += usualWidth
		}
	}
	return max(width, 1)
}

// rows is how many rows fit into one answer, at least one.
func (f *fit) rows(ids []uint16) int {
	limit := largest
	if f.buffer > 0 {
		limit = min(limit, f.buffer)
	}
	if f.room > 0 {
		limit = min(limit, f.room)
	}
	return max((limit-pageHeader-registerHeader*len(ids))/f.rowWidth(ids), 1)
}

// cut takes in that the meter had room for some of the rows alone.
func (f *fit) cut(ids []uint16, rows int) {
	f.buffer = f.length(ids, rows)
}

// fewer takes in that the meter answered for some of the registers alone.
func (f *fit) fewer(registers int) { f.size, f.most = registers, registers }

// damaged takes in that an answer did not come through. Less will be asked for: fewer
// rows, then fewer registers. False says that there is no less.
func (f *fit) damaged(ids []uint16, rows int) bool {
	switch {
	case rows > 1:
		f.room = f.length(ids, rows/2)
	case len(ids) > 1:
		f.size = len(ids) / 2
	default:
		return false
	}
	if f.grown {
		f.need = min(2*f.need, growAtMost)
	}
	f.good, f.grown = 0, false
	return true
}

// came takes in a good answer.
func (f *fit) came(registers []kmp.Register) {
	for _, r := range registers {
		f.width[r.ID] = len(r.Raw)
	}
	f.good++
	if f.good >= growAfter && f.grown {
		f.need, f.grown = growAfter, false
	}
	if f.good < f.need || f.room == 0 && f.size == f.most {
		return
	}
	f.good, f.grown = 0, true
	f.size = min(2*f.size, f.most)
	if f.room *= 2; f.room >= largest {
		f.room = 0
	}
}
