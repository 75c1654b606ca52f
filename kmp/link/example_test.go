package link_test

import (
	"context"
	"fmt"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/catalog"
	"kmp2mqtt/kmp/link"
)

// A reading of three registers. The line is a simulated meter whose time stands at a
// given start; /dev/ttyUSB0 or tcp://host:port work in the same way.
func Example() {
	ctx := context.Background()
	target, err := link.Parse("sim://403?start=2026-01-15T12:00:00Z")
	if err != nil {
		fmt.Println(err)
		return
	}
	line, err := link.Open(ctx, target)
	if err != nil {
		fmt.Println(err)
		return
	}
	conn := kmp.NewConn(line, kmp.Options{ByteTime: target.ByteTime()})
	defer conn.Close()

	registers, err := conn.GetRegister(ctx, kmp.HeatMeter, 60, 68, 80)
	if err != nil {
		fmt.Println(err) // errors.Is(err, kmp.ErrNoReply): the meter is silent
		return
	}
	for _, r := range registers {
		value, err := catalog.Value(r)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(catalog.Key(catalog.Lookup(r.ID).Name, r.Unit), value)
	}
	// Output:
	// energy_gj 127.388
	// volume_m3 1127.00
	// power_kw 2.6
}
