// Package logbook reads the log of a meter: a range of its rows, in few and large
// requests, every row checked, without holes.
//
//	r := logbook.NewReader(logbook.Source{Conn: conn, Address: kmp.HeatMeter, Zone: zone}, kmp.LogHour, logbook.Range{After: 188, Known: true})
//	for {
//		rows, err := r.Next(ctx) // one request
//		if errors.Is(err, logbook.ErrEnd) {
//			break
//		}
//		...
//	}
//
// The rows of a log have ids that count up by one. A meter without power writes no
// rows: that is a hole in time and never one in the ids. A log has a depth: the
// oldest rows make room for new ones.
//
// The logs of a 303, 403, 603 or 803 are read by the logger command, B8; the hour log in a
// logger module of a 601, or in an 801, by commands A0 to A3: a [Source] whose address is
// [kmp.LoggerTop] or [kmp.LoggerBase] says so. A module counts its rows with 16 bits, and a
// [Row] goes on counting from the one before. For a reader without one before, numbers
// begin anew with what the module has: keep the last row.
//
// # Time
//
// A row holds the time at which it was written, by the meter's own clock and in one
// of two forms. Register 348 tells date, time and how much daylight saving time is in
// them. Registers 1003 and 1002 tell date and time alone: meters run on standard time.
// [Row].Time has these digits and the offset from UTC that they were written with.
//
// What the time of a row in a day, month or year log says depends on the meter: a 303,
// 403, 603 or 803 stamps 00:00 of the target date, a 402, 602 or 801 24:00 of the day
// before (technical description of the 403, p 45). The digits stand as they are; only a
// row that cannot be read as a time has none.
package logbook
