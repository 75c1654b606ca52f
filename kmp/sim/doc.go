// Package sim is a simulated Kamstrup meter in a house that lives, which answers KMP
// on any stream of bytes: a MULTICAL 403, 601 or 603 for heat, a MULTICAL 21 for water
// or a Kamstrup 382 for electricity.
//
//	meter, err := sim.New(sim.Config{Model: "403", Seed: 1})
//	line := meter.Line(ctx) // or Serve, ServeListener, OpenPTY
//	conn := kmp.NewConn(line, kmp.Options{})
//
// A [Recording] is another kind of meter: a support bundle that answers as a real one did.
//
// # The house
//
// The weather follows the year, the day and a few days' mood; the house heats
// against it, sets back at night, and draws hot water when people do. Volume and
// temperatures are what is integrated; everything else follows from them, so that
// energy = volume × (T1 − T2) × 4.15 MJ/(m³·K) and E8 − E9 agree to the last digit.
// With cooling, cold water takes the place of the warm on warm days; E3 counts then,
// and power and temperature difference are negative (what real meters show is not
// known). The water meter counts what the same people draw; the electricity meter has
// three phases, two tariffs and the sun on the roof.
// The meter was installed two years before the last first of August and has lived
// through that time in the same way.
//
// All values are a function of the seed, the model and the simulated time, computed
// with integers on a fixed grid: the multiples of the integration interval. So two
// meters of the same configuration agree whenever they are read, and however often
// each was read before; one that is started again later goes on where it would be
// (what is older than yesterday is integrated in larger steps, so after a day some
// last digits differ). Steps are computed when somebody looks: ten days take about
// three milliseconds, a year a tenth of a second. Only the clock (registers 1002,
// 1003, 348) moves between the steps of the grid. It shows standard time, as meters
// do; register 348 adds daylight saving time and says so.
//
// Time comes from package time alone, so the whole simulation runs on the fake clock
// of testing/synctest.
//
// # The logs
//
// The logs of years, months, days, hours and minutes go by the meter's own clock, which
// is as far off as [Config] says: when it passes a full hour, a row is written with what
// the registers show then, which are the values of the last step of the grid until that
// moment. Two years of them are there from the start on, the oldest ones overwritten. A
// power cut leaves a hole in the time of the rows, a clock that is set repeats hours or
// leaves them out, and the ids count on. [Meter.Log] is the whole log, for a test to
// compare with what its reader got.
//
// A 403 and a 603 answer the logger command B8 at their own address, a 601 has two
// logger modules that answer A0 to A3, 9B and 9C at addresses of their own. The other
// two are silent to all of it.
//
// A log costs nothing until somebody asks for it. Then the meter lives through its life
// again, which takes some ten milliseconds, and keeps the log from there on: some 120 KB
// for the hours of a 603.
//
// # The line
//
// The meter answers what a meter answers and is silent where a meter is silent: a
// bad CRC, another address, an unknown command, malformed stuffing, 0 or more than 8
// registers. Registers it does not have are left out, the others come in the order
// asked. [Faults] makes the line, and the meter, as bad as they are;
// [Meter.SetFaults] changes them while it runs, and [Meter.Counts] says what has been
// done, so that a report can set the cause given beside the cause found.
package sim
