package history

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/logbook"
)

func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	row := logbook.Row{Log: kmp.LogHour, ID: 188, Time: time.Date(2026, 11, 21, 7, 0, 0, 0, time.FixedZone("", 3600)), Registers: []kmp.Register{{ID: 60, Unit: 8, SiEx: 0x43, Raw: []byte{0, 3, 0x78, 0x75}}}}
	if err := s.Append("80123456", []logbook.Row{row}); err != nil {
		t.Fatal(err)
	}
	got, err := s.After("80123456", kmp.LogHour, 0, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]logbook.Row{row}, got); diff != "" {
		t.Error(diff)
	}
}
