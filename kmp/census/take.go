package census

import (
	"context"
	"fmt"
	"time"

	"kmp2mqtt/kmp"
)

// Take runs a census to its end. Ask reads registers; its error ends the census, and
// is returned, when it is the fifth in a row or when ctx is done. What was learned until
// then stays in the profile.
func Take(ctx context.Context, ask func(ctx context.Context, ids []uint16) ([]kmp.Register, error), p *Profile) error {
	failed := 0
	for ids := p.Next(); len(ids) > 0; ids = p.Next() {
		got, err := ask(ctx, ids)
		if err == nil {
			p.Note(time.Now(), ids, got)
			failed = 0
			continue
		}
		failed++
		if ctx.Err() != nil || failed == maxFailed {
			return fmt.Errorf("census: %w", err)
		}
		p.Fail(time.Now(), ids)
	}
	return nil
}

// maxFailed is how many requests in a row may fail: from 8 registers down to 1, and once
// more.
const maxFailed = 5
