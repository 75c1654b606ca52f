package statistics

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// The importer's times.
const (
	ripeAfter   = 15 * time.Minute // an hour must have ended as long ago: Home Assistant itself writes its row first
	settleTime  = 5 * time.Second  // after something new, for more of it
	againAfter  = 15 * time.Minute // for what Home Assistant has to do something about first
	absentTime  = 2 * time.Minute  // without any entity of a meter, until it counts as unknown there
	firstPause  = time.Minute      // pauses after failures: limit doubled from here
	lastPause   = 30 * time.Minute // to here, of which at least half
	tokenPause  = 6 * time.Hour    // a refused token stays one, and each attempt is a warning to the owner
	chunkHours  = 1000             // that are read and written together
	shownChecks = 7                // after an import, with pauses of 250 ms doubled: half a minute
	firstCheck  = 250 * time.Millisecond
	maxPasses   = 20 // over what is pending, in one connection
)

// externalDomain is the source of external statistics.
const externalDomain = "kmp2mqtt"

// pauseAfter is how long to wait after a failure, when so many came before it in a row.
func pauseAfter(err error, failures int) time.Duration {
	if errors.Is(err, errToken) {
		return tokenPause
	}
	limit := min(firstPause<<min(failures, 10), lastPause)
	return limit/2 + rand.N(limit/2)
}

// importer carries what is pending to Home Assistant.
type importer struct {
	cfg    Config
	src    Source
	absent map[string]time.Time // by serial: since when Home Assistant knows nothing of the meter
	told   map[string]string    // by unique id: why the series waits, as the log was told
	began  time.Time            // when the outage began; zero: none
	said   map[string]bool      // reasons of this outage
}

func newImporter(cfg Config, src Source) *importer {
	return &importer{cfg: cfg, src: src, absent: map[string]time.Time{}, told: map[string]string{}, said: map[string]bool{}}
}

// work is a series, and those of its points that are ripe.
type work struct {
	Series
	samples []sample // without values, until the statistic's unit is known
	points  map[int64]Point
	odd     []Point // not of a full hour, or of one for which there is another
}

// sort takes the points that are ripe at a time, and returns when the first of the others will be; zero: there is none.
func (w *work) sort(now time.Time) (next time.Time) {
	w.points = map[int64]Point{}
	for _, p := range w.Points {
		if ripe := p.End.Add(ripeAfter); ripe.After(now) {
			if next.IsZero() || ripe.Before(next) {
				next = ripe
			}
			continue
		}
		hour := hourOf(p.End) - 1
		if _, double := w.points[hour]; double || !p.End.Equal(p.End.Truncate(time.Hour)) {
			w.odd = append(w.odd, p)
			continue
		}
		w.points[hour] = p
		w.samples = append(w.samples, sample{hour: hour})
	}
	slices.SortFunc(w.samples, func(a, b sample) int { return cmp.Compare(a.hour, b.hour) })
	return next
}

// pending returns what is ripe, and after how long something else will be; 0: nothing.
func (im *importer) pending() (ripe []*work, again time.Duration, err error) {
	all, err := im.src.Pending()
	if err != nil {
		return nil, 0, &sourceError{err}
	}
	now := time.Now()
	for _, s := range all {
		w := &work{Series: s}
		if next := w.sort(now); !next.IsZero() {
			again = sooner(again, next.Sub(now))
		}
		if len(w.points)+len(w.odd) > 0 {
			ripe = append(ripe, w)
		}
	}
	return ripe, again, nil
}

// round imports what is ripe, and returns after how long to look again; 0: when there is something new.
func (im *importer) round(ctx context.Context) (again time.Duration, err error) {
	ripe, again, err := im.pending()
	if err != nil || len(ripe) == 0 {
		return again, err
	}
	c, err := dial(ctx, im.cfg)
	if err != nil {
		return 0, err
	}
	defer c.close()
	r := &visit{importer: im, conn: c, wrote: map[string]*written{}}
	defer r.tellWritten()
	for range maxPasses {
		settled, wait, err := r.pass(ctx, ripe)
		if err != nil {
			return 0, err
		}
		if ripe, again, err = im.pending(); err != nil {
			return 0, err
		}
		again = sooner(again, wait)
		if settled == 0 || len(ripe) == 0 {
			im.worked()
			return again, nil
		}
	}
	im.worked()
	return settleTime, nil // a long history, and others want to use Home Assistant as well
}

// sooner is the lesser of two times; 0 is never.
func sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return a + b
	}
	return min(a, b)
}

// visit is a round with its connection.
type visit struct {
	*importer
	*conn
	registry map[string]entity
	wrote    map[string]*written // by statistic
}

// written is what a round has imported into one statistic.
type written struct {
	meter       string
	hours       int
	first, last int64
}

// note counts rows that were imported.
func (v *visit) note(statistic, meter string, rows []row) {
	first, last := rows[0].hour, rows[len(rows)-1].hour
	w := v.wrote[statistic]
	if w == nil {
		w = &written{meter: meter, first: first, last: last}
		v.wrote[statistic] = w
	}
	w.hours += len(rows)
	w.first, w.last = min(w.first, first), max(w.last, last)
}

// tellWritten tells the log of all that was imported.
func (v *visit) tellWritten() {
	for _, id := range slices.Sorted(maps.Keys(v.wrote)) {
		w := v.wrote[id]
		v.cfg.Log.Info("Hours imported into Home Assistant's statistics", "statistic", id, "meter", w.meter, "hours", w.hours,
			"from", startOf(w.first), "to", startOf(w.last+1))
	}
}

// pass imports what is ripe of all series once. It returns how many points are settled, and when to look again for the
// others; 0: there are none.
func (v *visit) pass(ctx context.Context, ripe []*work) (settled int, again time.Duration, err error) {
	for _, w := range ripe {
		n, wait, err := v.series(ctx, w)
		switch {
		case err != nil && !ofSeries(err):
			return 0, 0, err
		case err != nil:
			wait = againAfter
			v.waits(w, slog.LevelWarn, "the import fails", "error", err)
		case wait == 0:
			delete(v.told, w.UniqueID)
		}
		settled += n
		again = sooner(again, wait)
	}
	return settled, again, nil
}

// series imports what is ripe of one series. What it could not settle is to be looked at again after wait.
func (v *visit) series(ctx context.Context, w *work) (settled int, wait time.Duration, err error) {
	if len(w.odd) > 0 {
		v.tellRefused(w, w.UniqueID, refused{refusedTime: len(w.odd)}, w.odd)
		if err := v.done(w, w.odd); err != nil {
			return 0, 0, err
		}
		settled = len(w.odd)
	}
	m, wait, err := v.target(w)
	if err != nil || wait > 0 {
		return settled, wait, err
	}
	if m.ID == "" { // nobody wants them
		return settled + len(w.points), 0, v.done(w, slices.Collect(maps.Values(w.points)))
	}
	factor, ok := convert(homeUnit(w.Unit), m.unit())
	if !ok {
		v.waits(w, slog.LevelWarn, "the units do not fit", "statistic", m.ID, "unit", m.unit(), "meter_unit", homeUnit(w.Unit),
			"advice", "correct the unit in Home Assistant under Developer tools, Statistics")
		return settled, againAfter, nil
	}
	for len(w.samples) > 0 {
		last := w.samples[0].hour + chunkHours
		n, _ := slices.BinarySearchFunc(w.samples, last, func(s sample, hour int64) int { return cmp.Compare(s.hour, hour) })
		chunk := w.samples[:n]
		if wait, err := v.chunk(ctx, w, m, factor, chunk); err != nil || wait > 0 {
			return settled, wait, err
		}
		settled += n
		w.samples = w.samples[n:]
	}
	return settled, 0, nil
}

// chunk imports some points that lie close together and settles them, or says when to try again.
func (v *visit) chunk(ctx context.Context, w *work, m metadata, factor *big.Rat, chunk []sample) (wait time.Duration, err error) {
	rows, joins, err := v.around(m, chunk)
	if err != nil {
		return 0, err
	}
	if !joins {
		// The first row of a sensor is Home Assistant's: it begins with the sum 0, whatever is there already.
		v.waits(w, slog.LevelInfo, "the first row must be Home Assistant's own", "statistic", m.ID)
		return againAfter, nil
	}
	slack := new(big.Rat)
	points := make([]Point, len(chunk))
	for i := range chunk {
		points[i] = w.points[chunk[i].hour]
		var step *big.Rat
		chunk[i].value, step = scaled(points[i].Value, factor)
		slack = most(slack, most(step, new(big.Rat).Mul(relativeSlack(), new(big.Rat).Abs(chunk[i].value))))
	}
	missing, no := join(rows, chunk, slack)
	if len(missing) > 0 {
		if err := v.add(m, missing); err != nil {
			return 0, err
		}
		if err := v.shown(ctx, m, missing); err != nil {
			return 0, err
		}
		v.note(m.ID, w.Serial, missing)
	}
	v.tellRefused(w, m.ID, no, points)
	return 0, v.done(w, points)
}

// relativeSlack is what binary fractions may be off.
func relativeSlack() *big.Rat { return big.NewRat(1, 1e9) }

// shown waits until Home Assistant shows rows for the hours: the answer to an import only says that it is queued.
func (v *visit) shown(ctx context.Context, m metadata, want []row) error {
	pause := firstCheck
	for range shownChecks {
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
		pause *= 2
		rows, err := v.rows(m, want[0].hour, want[len(want)-1].hour+1)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(want, func(r row) bool { return !has(rows, r.hour) }) {
			return nil
		}
	}
	return errNotShown
}

// done tells the source that points of a series are settled.
func (v *visit) done(w *work, points []Point) error {
	s := w.Series
	s.Points = points
	if err := v.src.Done(s); err != nil {
		return &sourceError{err}
	}
	return nil
}

// target returns the statistic that a series belongs to, or when to look for it again; neither when it belongs nowhere.
func (v *visit) target(w *work) (m metadata, wait time.Duration, err error) {
	if !w.Always {
		var external bool
		m, wait, external, err = v.sensor(w)
		if err != nil || wait > 0 || !external || w.OwnOnly {
			return m, wait, err
		}
	}
	id, ok := ExternalID(w.Serial, w.Register)
	if !ok {
		v.waits(w, slog.LevelWarn, "serial number and register make no id of a statistic")
		return metadata{}, againAfter, nil
	}
	m, ok, err = v.metadata(id)
	if err != nil || ok {
		return m, 0, err
	}
	m = metadata{ID: id, Source: externalDomain, Name: &w.Name, HasSum: true}
	if unit := homeUnit(w.Unit); unit != "" {
		m.Unit = &unit
		if class := unitClass(unit); class != "" {
			m.UnitClass = &class
		}
	}
	return m, 0, nil
}

// sensor returns the statistic of the series' own sensor, or when to look for it again. Neither, when it is disabled, or
// when Home Assistant has no such sensor: then its place is an external statistic.
func (v *visit) sensor(w *work) (m metadata, wait time.Duration, external bool, err error) {
	if v.registry == nil {
		if v.registry, err = v.entities(); err != nil {
			return metadata{}, 0, false, err
		}
	}
	e, found := v.registry[w.UniqueID]
	switch {
	case found && e.disabled:
		return metadata{}, 0, false, nil
	case !found && v.knows(w):
		return metadata{}, 0, true, nil
	case !found:
		if wait := v.absence(w.Serial); wait > 0 {
			v.waits(w, slog.LevelInfo, "Home Assistant does not know the meter yet")
			return metadata{}, wait, false, nil
		}
		return metadata{}, 0, true, nil
	}
	m, ok, err := v.metadata(e.id)
	if err != nil {
		return metadata{}, 0, false, err
	}
	if !ok || !m.HasSum {
		v.waits(w, slog.LevelInfo, "Home Assistant keeps no sums of the sensor yet", "entity", e.id,
			"advice", "it must be a total in Home Assistant, and recorded")
		return metadata{}, againAfter, false, nil
	}
	return m, 0, false, nil
}

// knows says whether Home Assistant has any sensor of a meter, so that the one that it does not have will not come with
// the next message.
func (v *visit) knows(w *work) bool {
	prefix := strings.TrimSuffix(w.UniqueID, w.Register)
	for id := range v.registry {
		if strings.HasPrefix(id, prefix) {
			delete(v.absent, w.Serial)
			return true
		}
	}
	return false
}

// absence is how long to wait yet for a meter to appear in Home Assistant.
func (v *visit) absence(serial string) time.Duration {
	since, known := v.absent[serial]
	if !known {
		since = time.Now()
		v.absent[serial] = since
	}
	return max(absentTime-time.Since(since), 0)
}

// ExternalID is the id of the external statistic of a counter, kmp2mqtt:<serial>_<register name>, in the characters that
// Home Assistant takes: lower-case letters, digits and single underscores within. It returns false when nothing is left.
func ExternalID(serial, register string) (id string, ok bool) {
	var b strings.Builder
	for _, r := range strings.ToLower(serial + "_" + register) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "_"):
			b.WriteByte('_')
		}
	}
	name := strings.TrimSuffix(b.String(), "_")
	return externalDomain + ":" + name, name != ""
}

// waits tells the log why the hours of a series are not imported yet, once.
func (im *importer) waits(w *work, level slog.Level, reason string, attrs ...any) {
	attrs = append([]any{"meter", w.Serial, "register", w.Register, "reason", reason}, attrs...)
	why := fmt.Sprint(attrs...)
	if im.told[w.UniqueID] == why {
		level = slog.LevelDebug
	}
	im.told[w.UniqueID] = why
	im.cfg.Log.Log(context.Background(), level, "Hours wait to be imported into Home Assistant's statistics", attrs...)
}

// tellRefused tells the log of points that will not be imported.
func (im *importer) tellRefused(w *work, statistic string, no refused, points []Point) {
	for reason, n := range no {
		im.cfg.Log.Warn("Hours not imported into Home Assistant's statistics", "statistic", statistic, "meter", w.Serial,
			"hours", n, "between", points[0].End, "and", points[len(points)-1].End, "reason", string(reason))
	}
}

// failed tells the log of an attempt that failed: once for each reason of an outage.
func (im *importer) failed(err error) {
	reason, advice := explain(err)
	if im.began.IsZero() {
		im.began = time.Now()
	}
	level := slog.LevelWarn
	if im.said[reason] {
		level = slog.LevelDebug
	}
	im.said[reason] = true
	attrs := []any{"reason", reason, "advice", advice, "error", err}
	if _, own := errors.AsType[*sourceError](err); own {
		im.cfg.Log.Log(context.Background(), level, "Hours for Home Assistant's statistics cannot be read or ticked off", attrs...)
		return
	}
	attrs = append([]any{"url", websocketURL(im.cfg.URL).String()}, attrs...)
	im.cfg.Log.Log(context.Background(), level, "Home Assistant's statistics cannot be reached", attrs...)
}

// worked tells the log that an outage is over.
func (im *importer) worked() {
	if im.began.IsZero() {
		return
	}
	im.cfg.Log.Info("Hours reach Home Assistant's statistics again", "outage", time.Since(im.began).Round(time.Second))
	im.began = time.Time{}
	clear(im.said)
}
