package logbook

import (
	"testing"
	"time"
)

func TestParseMoment(t *testing.T) {
	copenhagen, err := time.LoadLocation("Europe/Copenhagen")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	good := map[string]string{
		"2026-11-21T07:00:00+01:00": "2026-11-21T06:00:00Z",
		"2026-11-21T07:00:00Z":      "2026-11-21T07:00:00Z",
		"2026-11-21":                "2026-11-20T23:00:00Z",
		"2026-07-21T07:00":          "2026-07-21T05:00:00Z",
		"2026-11-21T07:00:30":       "2026-11-21T06:00:30Z",
		"48h":                       "2026-11-19T12:00:00Z",
		"1h30m":                     "2026-11-21T10:30:00Z",
		"7d":                        "2026-11-14T12:00:00Z",
		"0d":                        "2026-11-21T12:00:00Z",
	}
	for text, want := range good {
		if got, err := ParseMoment(text, now, copenhagen); err != nil || got.UTC().Format(time.RFC3339) != want {
			t.Errorf("%q: %v, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{"", "yesterday", "2026-11-31", "2026-11-21 7", "21.11.2026", "-48h", "-7d", "7", "1.5d", "d", "99999999999d", "2026-11-21T25:00"} {
		if got, err := ParseMoment(text, now, copenhagen); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
