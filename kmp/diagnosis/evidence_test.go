package diagnosis

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"kmp2mqtt/kmp"
)

func TestEvidenceJSON(t *testing.T) {
	long := bytes.Repeat([]byte{0xAB}, 500)
	tests := []struct {
		e    Evidence
		want string
	}{
		{
			Evidence{},
			`{"error":null,"bytes_sent":0,"bytes_received":0,"echo":false,"echo_before":false,"first_byte_s":null,"answers":0,"bad_frames":0,"checksum_errors":0,"checksum_share":null,"foreign":0,"sample":"","last_good":null,"sessions":0}`,
		},
		{
			Evidence{
				Err: errors.New("what"), Sent: 12, Received: 500, Echo: true, EchoBefore: true, FirstByte: 45400 * time.Microsecond,
				Answers: 1, BadFrames: 2, ChecksumErrors: 1, Foreign: 0, Sample: long,
				LastGood: time.Date(2026, 11, 21, 8, 45, 1, 5, time.FixedZone("", 3600)), Sessions: 3,
			},
			`{"error":"what","bytes_sent":12,"bytes_received":500,"echo":true,"echo_before":true,"first_byte_s":0.045,"answers":1,"bad_frames":2,"checksum_errors":1,"checksum_share":0.333,"foreign":0,"sample":"` +
				strings.Repeat("ab", 64) + `","last_good":"2026-11-21T07:45:01Z","sessions":3}`,
		},
	}
	for _, tt := range tests {
		got, err := json.Marshal(tt.e)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s, %v\nwant %s", got, err, tt.want)
		}
	}
}

func TestFromError(t *testing.T) {
	x := &kmp.ExchangeError{Address: kmp.LoggerTop, Request: []byte{1, 2}, Received: []byte{3}, Echo: true, Err: kmp.ErrNoReply}
	e := FromError(fmt.Errorf("reading: %w", x))
	if e.Sent != 2 || e.Received != 1 || !e.Echo || e.Address != kmp.LoggerTop || !bytes.Equal(e.Sample, []byte{3}) {
		t.Errorf("%+v", e)
	}
	if e := FromError(errors.New("other")); e.Err == nil || e.Sent != 0 || e.Sample != nil {
		t.Errorf("%+v", e)
	}
}

func TestText(t *testing.T) {
	e := Evidence{Answers: 5, BadFrames: 7, ChecksumErrors: 6}
	if got := e.Text(BadChecksums); !strings.HasPrefix(got, Lookup(BadChecksums).Text) || !strings.HasSuffix(got, " 7 of 12 frames were bad, 6 by their checksum, 1 cut short or mixed up.") {
		t.Error(got)
	}
	e.Err = exchange(&kmp.AddressError{Want: kmp.HeatMeter, Got: kmp.LoggerTop}, "")
	if got := e.Text(WrongAddress); !strings.HasSuffix(got, " Asked was 3F, the answer came from 7F.") {
		t.Error(got)
	}
	if got := e.Text(Silent); got != Lookup(Silent).Text {
		t.Error(got)
	}
	if got := (Evidence{}).Text(BadChecksums); got != Lookup(BadChecksums).Text {
		t.Error(got)
	}
}
