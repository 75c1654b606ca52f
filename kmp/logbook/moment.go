package logbook

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// errMoment says what [ParseMoment] takes.
var errMoment = errors.New("should be a time such as 2026-11-21, 2026-11-21T07:00 or 2026-11-21T07:00:00+01:00, or how long ago: 48h, 7d")

// ParseMoment reads a moment as people write it: RFC 3339; a date with or without a time
// of day, in zone; or how long before now it was, in units of [time.ParseDuration] or in
// days: "48h", "7d".
func ParseMoment(s string, now time.Time, zone *time.Location) (time.Time, error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, zone); err == nil {
			return t, nil
		}
	}
	ago, err := time.ParseDuration(s)
	if days, ok := strings.CutSuffix(s, "d"); ok {
		var n uint64
		n, err = strconv.ParseUint(days, 10, 16) // 179 years: far more than any log
		ago = time.Duration(n) * 24 * time.Hour
	}
	if err != nil || ago < 0 {
		return time.Time{}, errMoment
	}
	return now.Add(-ago), nil
}
