// Package numbers makes the numbers of a meter right before they are published: what
// is not credible is held back or unknown, and what follows exactly from several
// registers is worked out.
//
// [State.Judge] takes the values of one reading and what is remembered of the meter,
// and gives back what may be published. It has no clock and does no I/O; the bounds of
// what a meter can show are in package catalog.
package numbers
