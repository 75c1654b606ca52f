// Package hatest is a Home Assistant for tests, as far as package statistics needs one: its websocket with the commands
// for the entity registry and the recorder, and a recorder that keeps rows of hours.
//
// It does what the documentation says (developers.home-assistant.io, "WebSocket API"; the blog of 2025-10-16; core
// 2026.4, components/recorder): commands in order of their ids, schemas that refuse keys that they do not know, imports
// for administrators only, rows that an import overwrites, values in the unit in which somebody wants to see them unless
// another one is asked for.
package hatest

import (
	"cmp"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

// Entity is an entry of the entity registry.
type Entity struct {
	ID       string // sensor.heat_meter_energy
	UniqueID string
	Platform string // empty: mqtt
	Disabled bool
}

// Statistic is what the recorder knows of one statistic.
type Statistic struct {
	ID          string
	Source      string // empty: recorder
	Name        string // empty: none
	Unit        string // of what is stored
	DisplayUnit string // in which it is shown; empty: Unit
	UnitClass   string // empty: none
	Mean        bool   // it is a mean, not a sum
}

// Row is the row of one hour. State and Sum are JSON numbers; empty is null.
type Row struct {
	Start      time.Time
	State, Sum string
}

// Call is a command that was sent, as it came.
type Call struct {
	Command string
	Message []byte
}

// Reply is what a test has the server do instead of answering a command.
type Reply struct {
	Before        [][]byte // these first; with nothing else here, it then answers as always
	Ping          bool     // likewise
	Code, Message string   // an error result
	Raw           []byte   // this instead of a result
	Binary        bool     // of Raw
	Close         bool     // it hangs up, after Raw
	Silent        bool     // it never answers
}

// Server is a Home Assistant. Its fields are set before it is used, its methods may be called at any time.
type Server struct {
	Token   string
	User    bool           // the token is of a user who is no administrator
	Version string         // empty: 2026.11.0
	Lag     time.Duration  // for which the recorder lets imports wait
	Path    string         // of the websocket; empty: /api/websocket
	Zone    *time.Location // in which its months begin; nil: UTC

	// Hook sees every message before the server does, commands by their name, the login as "auth", and the beginning of a
	// connection as "connect". It returns nil for what the server is to do itself.
	Hook func(command string, message []byte) *Reply

	mu         sync.Mutex
	entities   []Entity
	statistics map[string]*statistic
	calls      []Call
	conns      map[*websocket.Conn]bool
	logins     int
	pongs      int
}

type statistic struct {
	Statistic
	rows map[int64]Row // by start, seconds since 1970
}

// New returns a Home Assistant without entities and statistics.
func New(token string) *Server {
	return &Server{Token: token, statistics: map[string]*statistic{}, conns: map[*websocket.Conn]bool{}}
}

// SetEntities replaces the entity registry.
func (s *Server) SetEntities(entities ...Entity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entities = slices.Clone(entities)
}

// SetStatistic makes a statistic, or changes what is known of it. Its rows stay.
func (s *Server) SetStatistic(meta Statistic) {
	s.mu.Lock()
	defer s.mu.Unlock()
	meta.Source = cmp.Or(meta.Source, "recorder")
	if old := s.statistics[meta.ID]; old != nil {
		old.Statistic = meta
		return
	}
	s.statistics[meta.ID] = &statistic{meta, map[int64]Row{}}
}

// Statistic returns what is known of a statistic; false if there is none.
func (s *Server) Statistic(id string) (Statistic, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.statistics[id]; st != nil {
		return st.Statistic, true
	}
	return Statistic{}, false
}

// SetRows puts rows into a statistic that there is, over those of the same hours.
func (s *Server) SetRows(id string, rows ...Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.statistics[id].rows[r.Start.Unix()] = r
	}
}

// Rows returns all rows of a statistic, in order.
func (s *Server) Rows(id string) []Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sorted(id)
}

func (s *Server) sorted(id string) (rows []Row) {
	if st := s.statistics[id]; st != nil {
		for _, r := range st.rows {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b Row) int { return a.Start.Compare(b.Start) })
	return rows
}

// Count adds the row of an hour, as Home Assistant does for a sensor that shows state at its end: the sum grows as the
// state does since the row before, and begins with 0.
func (s *Server) Count(id string, start time.Time, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row, before := Row{Start: start.UTC(), State: state, Sum: "0"}, Row{}
	for _, r := range s.statistics[id].rows {
		if r.State != "" && r.Start.Before(start) && r.Start.After(before.Start) {
			before = r
		}
	}
	if before.State != "" {
		grown := new(big.Rat).Sub(rat(state), rat(before.State))
		row.Sum = text(grown.Add(grown, rat(before.Sum)))
	}
	s.statistics[id].rows[start.Unix()] = row
}

func rat(s string) *big.Rat {
	if r, ok := new(big.Rat).SetString(s); ok {
		return r
	}
	return new(big.Rat)
}

func text(r *big.Rat) string {
	digits, exact := r.FloatPrec()
	if !exact {
		digits = 15
	}
	return r.FloatString(digits)
}

// Calls returns the commands that were sent since it was called last.
func (s *Server) Calls() []Call {
	s.mu.Lock()
	defer s.mu.Unlock()
	calls := s.calls
	s.calls = nil
	return calls
}

// Connections is how many connections there are just now.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Logins is how many connections have logged in so far.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// Pongs is how many pings have been answered so far.
func (s *Server) Pongs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pongs
}

// Hangup cuts all connections.
func (s *Server) Hangup() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ws := range s.conns {
		ws.NetConn().Close()
	}
}

// ServeHTTP speaks the websocket at its path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != cmp.Or(s.Path, "/api/websocket") {
		http.NotFound(w, r)
		return
	}
	var upgrader websocket.Upgrader
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has been answered
	}
	ws.SetPongHandler(func(string) error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pongs++
		return nil
	})
	s.mu.Lock()
	s.conns[ws] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, ws)
		s.mu.Unlock()
		ws.Close()
	}()
	session := &session{Server: s, ws: ws}
	if session.login() {
		session.serve()
	}
}

// session is one connection.
type session struct {
	*Server
	ws   *websocket.Conn
	last int64 // the highest id so far
}

func (s *session) send(v any) bool { return s.ws.WriteJSON(v) == nil }

// hooked lets the test answer; it returns whether it did, and whether the connection goes on.
func (s *session) hooked(command string, message []byte, id int64) (did, on bool) {
	if s.Hook == nil {
		return false, true
	}
	reply := s.Hook(command, message)
	if reply == nil {
		return false, true
	}
	for _, before := range reply.Before {
		if s.ws.WriteMessage(websocket.TextMessage, before) != nil {
			return true, false
		}
	}
	if reply.Ping && s.ws.WriteControl(websocket.PingMessage, nil, time.Now().Add(time.Second)) != nil {
		return true, false
	}
	if (reply.Before != nil || reply.Ping) && reply.Code == "" && reply.Raw == nil && !reply.Close && !reply.Silent {
		return false, true
	}
	if reply.Code != "" {
		return true, s.fail(id, reply.Code, reply.Message)
	}
	if reply.Raw != nil {
		kind := websocket.TextMessage
		if reply.Binary {
			kind = websocket.BinaryMessage
		}
		if s.ws.WriteMessage(kind, reply.Raw) != nil {
			return true, false
		}
	}
	return true, !reply.Close
}

func (s *session) version() string { return cmp.Or(s.Version, "2026.11.0") }

func (s *session) login() bool {
	if did, on := s.hooked("connect", nil, 0); did && !on {
		return false
	} else if !did {
		s.send(map[string]string{"type": "auth_required", "ha_version": s.version()})
	}
	var auth struct {
		Type  string `json:"type"`
		Token string `json:"access_token"`
	}
	_, data, err := s.ws.ReadMessage()
	if err != nil || json.Unmarshal(data, &auth) != nil {
		return false
	}
	if did, on := s.hooked("auth", data, 0); did {
		return on
	}
	if auth.Type != "auth" || auth.Token != s.Token {
		s.send(map[string]string{"type": "auth_invalid", "message": "Invalid access token or password"})
		return false
	}
	s.mu.Lock()
	s.logins++
	s.mu.Unlock()
	return s.send(map[string]string{"type": "auth_ok", "ha_version": s.version()})
}

func (s *session) serve() {
	for {
		_, data, err := s.ws.ReadMessage()
		if err != nil {
			return
		}
		var command struct {
			ID   int64  `json:"id"`
			Type string `json:"type"`
		}
		if json.Unmarshal(data, &command) != nil {
			return
		}
		s.mu.Lock()
		s.calls = append(s.calls, Call{command.Type, data})
		s.mu.Unlock()
		did, on := s.hooked(command.Type, data, command.ID)
		if !did {
			on = s.answer(command.ID, command.Type, data)
		}
		if !on {
			return
		}
	}
}

// result answers a command with what is already JSON.
func (s *session) result(id int64, result any) bool {
	return s.send(map[string]any{"id": id, "type": "result", "success": true, "result": result})
}

func (s *session) fail(id int64, code, message string) bool {
	return s.send(map[string]any{
		"id": id, "type": "result", "success": false,
		"error": map[string]string{"code": code, "message": message},
	})
}

func (s *session) answer(id int64, command string, data []byte) bool {
	if id <= s.last {
		return s.fail(id, "id_reuse", "Identifier values have to increase.")
	}
	s.last = id
	switch command {
	case "config/entity_registry/list":
		return s.result(id, s.registry())
	case "recorder/get_statistics_metadata":
		return s.metadata(id, data)
	case "recorder/statistics_during_period":
		return s.during(id, data)
	case "recorder/import_statistics":
		if s.User {
			return s.fail(id, "unauthorized", "Unauthorized")
		}
		return s.add(id, data)
	}
	return s.fail(id, "unknown_command", "Unknown command.")
}

func (s *session) registry() []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []map[string]any{}
	for _, e := range s.entities {
		var disabled any
		if e.Disabled {
			disabled = "integration"
		}
		list = append(list, map[string]any{
			"entity_id": e.ID, "unique_id": e.UniqueID, "platform": cmp.Or(e.Platform, "mqtt"), "disabled_by": disabled,
			"area_id": nil, "has_entity_name": true, "hidden_by": nil, "labels": []string{}, "name": nil,
		})
	}
	return list
}

// older says whether this Home Assistant is from before a version such as "2025.11".
func (s *session) older(than string) bool {
	parse := func(v string) (n int) {
		parts := strings.SplitN(v, ".", 3)
		for _, part := range parts[:2] {
			digits := 0
			for _, c := range part {
				digits = digits*10 + int(c-'0')
			}
			n = n*100 + digits
		}
		return n
	}
	return parse(s.version()) < parse(than)
}
