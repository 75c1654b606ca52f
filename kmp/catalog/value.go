package catalog

import "kmp2mqtt/kmp"

// Value decodes a register by its unit, as [kmp.Register.Value] does, and
// multiplies the values that count in tens (units 0x37 to 0x39), exactly, so that
// they are in the unit's Symbol. A nil Value is one that the meter does not have.
func Value(r kmp.Register) (kmp.Value, error) {
	v, err := r.Value()
	if err != nil {
		return nil, err
	}
	if d, ok := v.(kmp.Decimal); ok {
		if u, _ := LookupUnit(r.Unit); u.Shift != 0 {
			if d, err = d.Shift(u.Shift); err != nil {
				return nil, err
			}
			return d, nil
		}
	}
	return v, nil
}
