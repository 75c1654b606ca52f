package diagnosis

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
)

// maxSample is how many of the bytes that came are shown.
const maxSample = 64

// Evidence is what is known of one reading and of those before it. Counters are those
// of this reading alone: differences of [kmp.Stats].
type Evidence struct {
	Err            error         // why it failed; nil: it did not
	Sent, Received uint64        // bytes, echo and noise included
	Echo           bool          // requests came back now
	EchoBefore     bool          // requests came back in earlier readings
	FirstByte      time.Duration // from the request's end to the first byte that is no echo; 0: none came
	Answers        uint64        // frames that were accepted
	BadFrames      uint64        // frames dropped: stuffing, length, checksum
	ChecksumErrors uint64        // the ones among them with a wrong checksum
	Foreign        uint64        // good frames dropped: other address, command or registers
	Sample         []byte        // the last bytes that came; JSON shows 64 of them
	Address        kmp.Address   // asked; 0: the meter's usual one
	Family         catalog.Family
	LastGood       time.Time // end of the newest good reading; zero: never
	Now            time.Time
	Failures       int // failed readings in a row, this one included; 0: not known
	Sessions       int // good readings in the 24 hours before Now
	Asked, Got     int // registers asked for and answered, when it succeeded
}

// FromError returns what an error alone tells: that of a [kmp.Conn] holds the bytes
// that came, the address and the echo.
func FromError(err error) Evidence {
	e := Evidence{Err: err}
	if x, ok := errors.AsType[*kmp.ExchangeError](err); ok {
		e.Sent, e.Received = uint64(len(x.Request)), uint64(len(x.Received))
		e.Echo, e.Sample, e.Address = x.Echo, x.Received, x.Address
	}
	return e
}

// Frames is how many frames began and ended, good or not.
func (e Evidence) Frames() uint64 { return e.Answers + e.BadFrames + e.Foreign }

// Text is the sentence of a class with what this reading adds to it: how many frames
// were damaged, which address answered.
func (e Evidence) Text(c Code) string {
	text := Lookup(c).Text
	if a, ok := errors.AsType[*kmp.AddressError](e.Err); ok && c == WrongAddress {
		text += fmt.Sprintf(" Asked was %02X, the answer came from %02X.", byte(a.Want), byte(a.Got))
	}
	if frames := e.Frames(); c == BadChecksums && frames > 0 {
		text += fmt.Sprintf(" %d of %d frames were bad, %d by their checksum, %d cut short or mixed up.",
			e.BadFrames, frames, e.ChecksumErrors, e.BadFrames-e.ChecksumErrors)
	}
	return text
}

// MarshalJSON writes what travels with a diagnosis; what is not known is null.
func (e Evidence) MarshalJSON() ([]byte, error) {
	v := struct {
		Error          *string    `json:"error"`
		Sent           uint64     `json:"bytes_sent"`
		Received       uint64     `json:"bytes_received"`
		Echo           bool       `json:"echo"`
		EchoBefore     bool       `json:"echo_before"`
		FirstByte      *float64   `json:"first_byte_s"`
		Answers        uint64     `json:"answers"`
		BadFrames      uint64     `json:"bad_frames"`
		ChecksumErrors uint64     `json:"checksum_errors"`
		ChecksumShare  *float64   `json:"checksum_share"`
		Foreign        uint64     `json:"foreign"`
		Sample         string     `json:"sample"`
		LastGood       *time.Time `json:"last_good"`
		Sessions       int        `json:"sessions"`
	}{
		Sent: e.Sent, Received: e.Received, Echo: e.Echo, EchoBefore: e.EchoBefore,
		Answers: e.Answers, BadFrames: e.BadFrames, ChecksumErrors: e.ChecksumErrors,
		Foreign: e.Foreign, Sample: hex.EncodeToString(lastBytes(e.Sample)), Sessions: e.Sessions,
	}
	if e.Err != nil {
		text := e.Err.Error()
		v.Error = &text
	}
	if e.FirstByte > 0 {
		s := seconds(e.FirstByte)
		v.FirstByte = &s
	}
	if frames := e.Frames(); frames > 0 {
		share := float64((1000*e.ChecksumErrors+frames/2)/frames) / 1000
		v.ChecksumShare = &share
	}
	if !e.LastGood.IsZero() {
		t := e.LastGood.UTC().Truncate(time.Second)
		v.LastGood = &t
	}
	return json.Marshal(v)
}

func lastBytes(p []byte) []byte { return p[max(0, len(p)-maxSample):] }

// seconds is a duration to the millisecond, as it stands in JSON.
func seconds(d time.Duration) float64 {
	return float64(d.Round(time.Millisecond).Milliseconds()) / 1000
}

// String is the evidence in one line, for people.
func (e Evidence) String() string {
	s := fmt.Sprintf("%d bytes sent, %d received", e.Sent, e.Received)
	if e.Echo {
		s += ", echo"
	} else {
		s += ", no echo"
	}
	if e.FirstByte > 0 {
		s += ", first byte after " + short(e.FirstByte)
	}
	if e.Frames() > 0 {
		s += fmt.Sprintf("; frames: %d good, %d bad (%d by their checksum), %d foreign", e.Answers, e.BadFrames, e.ChecksumErrors, e.Foreign)
	}
	if e.Err != nil {
		s += "; " + e.Err.Error()
	}
	return s
}
