package former

import "strings"

// Parameter is one value of another reader: what it calls it, and which register it is.
type Parameter struct {
	Name     string // "temp1" of kamstrup-402-mqtt and WobwobRt's reader, "Temp1" of golles' integration
	Register uint16
}

// Parameters are the names that kamstrup-402-mqtt and WobwobRt's kamstrup2mqtt give to registers,
// in the order of their own table. minflowDate_m and maxflowDate_m have a capital letter there;
// WobwobRt's reader publishes them in small letters all the same. The name infoevent is misleading:
// register 113 counts events, the info code is 99.
func Parameters() []Parameter {
	return []Parameter{
		{"energy", 60},
		{"power", 80},
		{"temp1", 86},
		{"temp2", 87},
		{"tempdiff", 89},
		{"flow", 74},
		{"volume", 68},
		{"minflow_m", 141},
		{"maxflow_m", 139},
		{"minflowDate_m", 140},
		{"maxflowDate_m", 138},
		{"minpower_m", 145},
		{"maxpower_m", 143},
		{"avgtemp1_m", 149},
		{"avgtemp2_m", 150},
		{"minpowerdate_m", 144},
		{"maxpowerdate_m", 142},
		{"minflow_y", 126},
		{"maxflow_y", 124},
		{"minflowdate_y", 125},
		{"maxflowdate_y", 123},
		{"minpower_y", 130},
		{"maxpower_y", 128},
		{"avgtemp1_y", 146},
		{"avgtemp2_y", 147},
		{"minpowerdate_y", 129},
		{"maxpowerdate_y", 127},
		{"temp1xm3", 97},
		{"temp2xm3", 110},
		{"infoevent", 113},
		{"hourcounter", 1004},
	}
}

// ByParameter finds a parameter by its name, in small or capital letters.
func ByParameter(name string) (Parameter, bool) {
	return find(Parameters(), name)
}

// GollesEntities are the sensors of golles' integration kamstrup_403 by their names, without
// "Kamstrup 403 " before them, in the order in which the integration makes them. Its sensor
// "Heat Energy to Gas" is not among them: it shows the number of register 60 with another unit.
func GollesEntities() []Parameter {
	return []Parameter{
		{"Heat Energy (E1)", 60},
		{"Cooling Energy (E3)", 63},
		{"Power", 80},
		{"Temp1", 86},
		{"Temp2", 87},
		{"Tempdiff", 89},
		{"Flow", 74},
		{"Volume", 68},
		{"MinFlow_M", 141},
		{"MaxFlow_M", 139},
		{"MinPower_M", 145},
		{"MaxPower_M", 143},
		{"AvgTemp1_M", 149},
		{"AvgTemp2_M", 150},
		{"MinFlow_Y", 126},
		{"MaxFlow_Y", 124},
		{"MinPower_Y", 130},
		{"MaxPower_Y", 128},
		{"AvgTemp1_Y", 146},
		{"AvgTemp2_Y", 147},
		{"Temp1xm3", 97},
		{"Temp2xm3", 110},
		{"Infoevent", 99},
		{"Infoevent counter", 113},
		{"Serial number", 1001},
		{"HourCounter", 1004},
		{"MinFlowDate_M", 140},
		{"MaxFlowDate_M", 138},
		{"MinPowerDate_M", 144},
		{"MaxPowerDate_M", 142},
		{"MinFlowDate_Y", 125},
		{"MaxFlowDate_Y", 123},
		{"MinPowerDate_Y", 129},
		{"MaxPowerDate_Y", 127},
	}
}

func find(list []Parameter, name string) (Parameter, bool) {
	for _, p := range list {
		if strings.EqualFold(p.Name, name) {
			return p, true
		}
	}
	return Parameter{}, false
}
