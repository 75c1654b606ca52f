// Package diagnosis says why a reading failed: evidence in, one class out, with a
// sentence in plain words and a next step for whoever stands beside the meter.
//
//	class.go     the classes: what an owner sees, what it is, what to do
//	evidence.go  what is known of one reading: counters, bytes, history
//	classify.go  from evidence to a class
//	quality.go   how good a line is: the last 20 exchanges
//	examine.go   one line looked at on the spot, step by step
//	align.go     many small reads for the hand that moves the head
//	table.go     the classes as a table, for the README
//
// What the classes rest on: the protocol document 5512-447 (timing, addresses,
// framing), the technical descriptions of the meters (magnet, sleep) and what owners
// of optical heads have found out.
package diagnosis
