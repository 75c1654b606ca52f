package sim

import (
	"fmt"
	"math/bits"
	"strings"
)

// ascii is what a MULTICAL 66C or 401 sends: ten groups of seven digits as 7E2, so
// that bit 7 of every byte makes its ones even (github.com/jeroen85/esphome_multical401).
func (m *Meter) ascii() []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.advance()
	s := m.state
	var text strings.Builder
	for _, v := range [10]int64{
		s.energy() / 10_000_000, // 0.01 GJ
		s.volume / 10_000,       // 0.01 m³
		(s.t - s.installed) / 3600,
		m.temp(0), m.temp(1), m.difference(),
		s.power / 100,
		s.flow / 1000,
		0,
		m.info(),
	} {
		fmt.Fprintf(&text, "%07d ", max(v, 0)%1e7)
	}
	wire := []byte(strings.TrimSuffix(text.String(), " ") + "\r")
	for i, b := range wire {
		wire[i] = b | byte(bits.OnesCount8(b)&1)<<7
	}
	return wire
}
