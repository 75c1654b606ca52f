// Package kmp speaks the Kamstrup Meter Protocol, KMP: the request and answer
// protocol on the optical port of Kamstrup's heat, cooling, water and electricity
// meters.
//
// A request and its answer go through three layers, each with its own file:
//
//	application   command and data                 message.go, decimal.go, datetime.go, and
//	                                               logger.go, logrecord.go, event.go, clock.go, put.go
//	data link     address, command, data, CRC-16   frame.go
//	physical      start byte, stuffing, stop byte  frame.go
//
// [Conn] is the client: it keeps the protocol's timing, survives the echo of an
// optical head, noise and late answers, and returns only what passed every check.
//
//	line, err := net.Dial("tcp", "192.0.2.7:2001") // or kmp/link for serial ports
//	conn := kmp.NewConn(line, kmp.Options{})
//	registers, err := conn.GetRegister(ctx, kmp.HeatMeter, 60, 68, 80)
//
// Every message encodes and decodes in both directions, so a simulator or a
// sniffer is written with the same codec ([Reader], [AppendMessage]).
//
// The codec starts no goroutine and reads no clock, and where its buffers are used
// again it allocates nothing.
//
// The protocol is that of Kamstrup's document 5512-447 (KMP for MULTICAL 601 and 801),
// and the names are its names. What goes beyond it was seen in captures of other
// meters and says so where it stands.
package kmp
