package census_test

import (
	"context"
	"fmt"

	"kmp2mqtt/kmp"
	"kmp2mqtt/kmp/census"
	"kmp2mqtt/kmp/sim"
)

func ExampleTake() {
	ctx := context.Background()
	meter, err := sim.New(sim.Config{Model: "601", Seed: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	conn := kmp.NewConn(meter.Line(ctx), kmp.Options{})
	defer conn.Close()

	p := census.New("80123456")
	err = census.Take(ctx, func(ctx context.Context, ids []uint16) ([]kmp.Register, error) {
		return conn.GetRegister(ctx, kmp.HeatMeter, ids...)
	}, &p)
	fmt.Println(p.Family, p.Complete(), err)
	fmt.Println(p.Has(60), p.Has(266), p.Lacks(266))
	fmt.Println(p.Usual())
	// Output:
	// heat true <nil>
	// true false true
	// [60 155 68 74 80 86 87 89 97 110 99 63 1004 113 124 123 128 127 139 143 149 150]
}
