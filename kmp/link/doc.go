// Package link opens the line a meter is on, by URL, and makes every kind of line
// the same thing: a [kmp.Line].
//
//	/dev/ttyUSB0                          a serial port, by its absolute path
//	serial:///dev/serial/by-id/usb-...    the same, as a URL
//	usb://10c4:ea60, usb://10c4:ea60/0001 the same, found by the adapter's USB ids and
//	                                      serial number at each opening, whatever its
//	                                      number in /dev is; Linux only
//	COM3, serial://COM3                   a serial port on Windows
//	tcp://host:port, socket://host:port   a serial server that passes bytes through as they are
//	rfc2217://host:port                   a serial server whose port is set from here
//	                                      (Telnet COM port control, RFC 2217)
//	sim://403                             a simulated meter inside this process
//
// Options follow as a query, as in /dev/ttyUSB0?baud=2400. What a Kamstrup meter's
// optical eye needs is the default: 1200 baud, 8 data bits, no parity, 2 stop bits.
//
//	baud       50 to 4000000 (1200)
//	databits   5, 6, 7 or 8 (8)
//	parity     none, even, odd, mark or space, or the first letter (none)
//	stopbits   1, 1.5 or 2 (2); 1.5 on Windows only
//	dtr, rts   on or off: sets the two wires when the port is opened; without these
//	           options they are left to the system, which raises both, and that is
//	           what powers an optical head. Serial ports and rfc2217:// only
//	warmup     0s to 30s (0s): how long a head that is powered by the two wires gets
//	           from the opening until the first byte is sent. Serial ports and
//	           rfc2217:// only
//
// With tcp:// the first four change nothing on the network: they say how the port
// behind the serial server is set, so that [Target.ByteTime] is right. The options
// of sim:// are those of package sim.
//
// Whatever the kind, a line from [Open] keeps these promises:
//
//   - Read returns at least one byte or an error, never (0, nil), except for an empty
//     buffer.
//   - A passed read deadline is [os.ErrDeadlineExceeded]. SetReadDeadline reaches a
//     Read that is already waiting, within 20 ms.
//   - A device that was unplugged, or a peer that hung up, is an error for which
//     errors.Is(err, [io.EOF]) holds. A peer over TCP that is just gone is one, too,
//     after about 15 s.
//   - Any error but a passed read deadline means that the line is to be closed and
//     opened anew.
//   - Write takes at most 5 s and then fails with [ErrStuck]. It never holds up Close.
//   - Close ends a waiting Read and Write. After it every call fails with
//     [os.ErrClosed], and nothing reaches the device.
//   - One Read, one Write, SetReadDeadline and Close may run at the same time.
package link
