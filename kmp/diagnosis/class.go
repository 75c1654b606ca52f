package diagnosis

import "slices"

// Code names a class. It is stable: automations test for it.
type Code string

// The codes.
const (
	OK                Code = "ok"
	NotRead           Code = "not_read"
	PortMissing       Code = "port_missing"
	PortBusy          Code = "port_busy"
	PortPermission    Code = "port_permission"
	HostUnknown       Code = "host_unknown"
	HostUnreachable   Code = "host_unreachable"
	ConnectionRefused Code = "connection_refused"
	ServerRefused     Code = "server_refused"
	LineLost          Code = "line_lost"
	LineStuck         Code = "line_stuck"
	Silent            Code = "silent"
	EchoOnly          Code = "echo_only"
	EchoMissing       Code = "echo_missing"
	Asleep            Code = "asleep"
	Throttled         Code = "throttled"
	NoFrame           Code = "no_frame"
	OtherProtocol     Code = "other_protocol"
	BadChecksums      Code = "bad_checksums"
	WrongAddress      Code = "wrong_address"
	ForeignFrames     Code = "foreign_frames"
	NoRegisters       Code = "no_registers"
	Missed            Code = "missed"
	WrongMeter        Code = "wrong_meter"
	Failed            Code = "failed"
)

// Class is one kind of outcome of a reading.
type Class struct {
	Code     Code
	Title    string   // a few words, as for a heading
	Text     string   // what it is: one sentence
	NextStep string   // what to do first: one sentence
	Symptoms []string // what an owner sees, logs in backquotes; for the README
}

// classes returns the table, in the order in which a line is looked at: port, network,
// meter. Sources: 5512-447 sections 2.1, 3.1, 3.2 and 6.2.4; technical descriptions of
// the 403 (page 130), 603 (147) and 803 (164) on the magnet sensor, of the 403 (63) on
// the four minutes after a button; owners' reports on heads, magnets and water meters.
func classes() []Class {
	return []Class{
		{
			OK, "Reading works",
			"The meter answers and its values are read.",
			"Nothing to do.",
			nil,
		},
		{
			NotRead, "Not read yet",
			"Nothing has been tried yet.",
			"Wait for the first reading, or ask for one.",
			nil,
		},
		{
			PortMissing, "The port is not there",
			"There is no such serial port now: the adapter is unplugged, or has another name.",
			"Plug the adapter in and name it as in /dev/serial/by-id/ or by usb://, which stay the same whatever its place; the bridge waits for it.",
			[]string{"`file does not exist`", "`no such USB serial adapter`", "`the device node is there, but no device behind it`"},
		},
		{
			PortBusy, "The port is in use",
			"Another program, or another line of this one, holds the serial port.",
			"Stop the other program; if two meters share one port, give it one name in all of METERS.",
			[]string{"`in use by another program`"},
		},
		{
			PortPermission, "No right to use the port",
			"The port is there, but this user may not open it.",
			"Add the user to the group of the device, usually dialout (sudo usermod -aG dialout USER), and log in again; with Docker, set SERIAL_GID in .env.",
			[]string{"`permission denied`"},
		},
		{
			HostUnknown, "The host's name is not known",
			"No name server knows the host that the line names, or none answers.",
			"Check the spelling of the host, or write its IP address.",
			[]string{"`no such host`", "`the name server did not answer`"},
		},
		{
			HostUnreachable, "The host does not answer",
			"There is no way to the host that the line names, or it gives no answer.",
			"Check that the serial server has power and network, that its address is right, and that no firewall is between.",
			[]string{"`no route to host`", "`network is unreachable`", "`i/o timeout` while the line is opened"},
		},
		{
			ConnectionRefused, "Connection refused",
			"The host is there, but nobody listens at that port: the serial server is not running, or has another port.",
			"Start the serial server (ser2net or the like), and check host and port.",
			[]string{"`connection refused`"},
		},
		{
			ServerRefused, "The serial server does not do what is asked",
			"The serial server does not let its port be set, as rfc2217:// demands.",
			"Use tcp:// instead of rfc2217:// if the server passes bytes through as they are; else switch RFC 2217 on there, in ser2net with telnet(rfc2217).",
			[]string{"`does not answer the request for COM port control (RFC 2217)`", "`the serial server refuses`"},
		},
		{
			LineLost, "The connection was lost",
			"The line ended while it was in use: the serial server closed the connection, or the adapter was unplugged.",
			"Close any other client, since many serial servers take one only; look at the server's log, or at the adapter's plug.",
			[]string{"`the serial server ended the connection`", "`the device is gone`"},
		},
		{
			LineStuck, "The line takes no bytes",
			"The adapter or the serial server does not take the bytes of a request.",
			"Unplug the adapter and plug it in again, or restart the serial server.",
			[]string{"`takes no more bytes`"},
		},
		{
			Silent, "Nothing comes back",
			"The line is open, but nothing at all comes back, not even the head's own echo.",
			"Press a button on the meter to wake it, check that the head has power and sits on the round optical port, then turn it by 180° and shift it by millimetres (kmp2mqtt align shows when it sits).",
			[]string{"`no reply (... nothing came)`"},
		},
		{
			EchoOnly, "Only the echo comes back",
			"The head works and hears its own light, but the meter does not answer: its optical port sleeps, or the head is not over it.",
			"Press a button on the meter to wake it, turn the head by 180° and shift it by millimetres; a magnet that is too weak or the wrong way round leaves the port asleep.",
			[]string{"`no reply (... only its echo came)`"},
		},
		{
			EchoMissing, "The echo is missing",
			"The head used to hear its own light and no longer does: it has fallen off, lost its power, or its cable is broken.",
			"Put the head back on the meter, and check its cable and its power.",
			[]string{"`no reply (... nothing came)` where `echo` was true in the diagnostics before"},
		},
		{
			Asleep, "The meter has fallen asleep",
			"The meter answered before and is silent now: no magnet holds its optical port awake, or the head has moved.",
			"Press a button on the meter to wake it; if it falls silent again after some minutes, turn the head so that its magnet holds the port awake, or use a stronger magnet.",
			[]string{"works for minutes after a button press, then silence"},
		},
		{
			Throttled, "The meter has closed its port for some hours",
			"The water meter answered before and is silent now: after a few readings such meters close their optical port for about 12 hours.",
			"Wait until it opens again and read it more rarely, as with ?interval=12h; if it stays silent for a day, press its button and check the head.",
			[]string{"a water meter (MULTICAL 21, flowIQ) answers a few times, then hours of silence"},
		},
		{
			NoFrame, "Bytes, but never a frame",
			"Bytes come, but never a frame of the meter: baud rate, parity or stop bits differ, or something else talks on this line.",
			"Set 1200 baud, 8 data bits, no parity and 2 stop bits on both sides of a serial server; for an electricity meter try ?baud=9600&stopbits=1, for a MULTICAL 302 ?baud=2400.",
			[]string{"`no frame in what came`, every time"},
		},
		{
			OtherProtocol, "The meter speaks another protocol",
			"The meter speaks the older protocol of MULTICAL III, Compact, 66C, 401 and 41 (text at 300 and 1200 baud), not KMP.",
			"This meter cannot be read by kmp2mqtt; look for a reader of IEC 61107 or of the MULTICAL 66C and 401.",
			[]string{"`no frame in what came`, with groups of seven digits in it"},
		},
		{
			BadChecksums, "Frames arrive damaged",
			"The meter answers, but too many of its frames arrive damaged: the head sits badly, or light disturbs it.",
			"Shift the head by millimetres and shade it from lamps and the sun (kmp2mqtt align shows how many frames are good).",
			[]string{"`checksum is ..., should be ...`", "`cut short`; now and then is harmless: it is retried and never published"},
		},
		{
			WrongAddress, "No answer at this address",
			"The meter does not answer at the address that the line asks.",
			"Give the line the address that answers, as in ?address=0x7F, or take the option address off it: meters have 0x3F, only loggers in modules 0x7F and 0xBF.",
			[]string{"`address is ..., should be ...`"},
		},
		{
			ForeignFrames, "Answers to somebody else",
			"Good frames come, but they answer something that was not asked: another program reads on the same line, or answers come late.",
			"Stop the other program that reads this meter; if there is none, give the line more patience with ?timeout=5s.",
			[]string{"`answer to something else`"},
		},
		{
			NoRegisters, "None of the registers",
			"The meter answers, but has none of the registers that it was asked for.",
			"Leave out REGISTERS and the option registers, or set the option model to what stands on the meter, as in ?model=403.",
			[]string{"`is not supported by this meter`, for every register"},
		},
		{
			Missed, "One reading without an answer",
			"The meter answered the last time, and this once it did not: a request or its answer was lost.",
			"Nothing to do, it is tried again at once; if it happens often, look at the link quality and at the place of the head.",
			[]string{"one failed reading now and then"},
		},
		{
			WrongMeter, "A meter that is read already",
			"The meter that answers here is read on another line already, or has the name of another one.",
			"Give every meter one line and a name of its own in METERS; look which head sits on which meter.",
			[]string{"`two lines lead to it`", "`belongs to another meter`"},
		},
		{
			Failed, "The reading failed",
			"The reading failed for a reason that has no name here.",
			"Read the error, which says what went wrong; kmp2mqtt diagnose looks closer.",
			nil,
		},
	}
}

// Classes returns every class, in the order in which a line is looked at. The slice is
// the caller's own.
func Classes() []Class { return classes() }

// Lookup returns the class of a code; of an unknown one, that of [Failed].
func Lookup(c Code) Class {
	all := classes()
	if i := slices.IndexFunc(all, func(k Class) bool { return k.Code == c }); i >= 0 {
		return all[i]
	}
	return Lookup(Failed)
}
