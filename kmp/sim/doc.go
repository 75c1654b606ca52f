// Package sim is a simulated Kamstrup heat meter: a MULTICAL 403, 601 or 603 in a
// house that lives, which answers KMP on any stream of bytes.
//
//	meter, err := sim.New(sim.Config{Model: "403", Seed: 1})
//	line := meter.Line(ctx) // or Serve, ServeListener, OpenPTY
//	conn := kmp.NewConn(line, kmp.Options{})
//
// # The house
//
// The weather follows the year, the day and a few days' mood; the house heats
// against it, sets back at night, and draws hot water when people do. Volume and
// temperatures are what is integrated; everything else follows from them, so that
// energy = volume × (T1 − T2) × 4.15 MJ/(m³·K) and E8 − E9 agree to the last digit.
// The meter was installed 830 days before the simulation starts and has lived
// through them in the same way.
//
// All values are a function of the configuration and of the simulated time that has
// passed, computed with integers on a fixed grid of integration intervals. So two
// meters of the same configuration agree whenever they are read, and however often
// each was read before. Steps are computed when somebody looks: ten days take about
// five milliseconds, a year under a quarter of a second. Only the clock (registers
// 1002, 1003, 348) moves between the steps of the grid. It shows standard time, as
// meters do; register 348 adds daylight saving time and says so.
//
// Time comes from package time alone, so the whole simulation runs on the fake clock
// of testing/synctest.
//
// # The line
//
// The meter answers what a meter answers and is silent where a meter is silent: a
// bad CRC, another address, an unknown command, malformed stuffing, 0 or more than 8
// registers. Registers it does not have are left out, the others come in the order
// asked. [Faults] makes the line as bad as lines are.
package sim
