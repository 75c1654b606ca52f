package sim_test

import (
	"context"
	"fmt"
	"time"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/sim"
)

func ExampleMeter_Line() {
	meter, err := sim.New(sim.Config{Model: "403", Seed: 1, Start: time.Date(2026, 11, 21, 7, 45, 0, 0, time.UTC)})
	if err != nil {
		fmt.Println(err)
		return
	}
	conn := kmp.NewConn(meter.Line(context.Background()), kmp.Options{})
	defer conn.Close()
	registers, err := conn.GetRegister(context.Background(), kmp.HeatMeter, 60, 68, 86, 371)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range registers { // 371 is not in a 403
		value, _ := r.Value()
		fmt.Println(r.ID, value)
	}
	// Output:
	// 60 116.429
	// 68 1035.63
	// 86 67.83
}
