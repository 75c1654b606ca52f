// Package discovery writes the messages by which Home Assistant learns what a
// meter measures: pure functions of a device and its measurements, without I/O.
//
// [Meter] describes a meter, [Bridge] the bridge itself, each in one retained
// message on the topic that [Topic] names. The messages are Home Assistant's
// device-based discovery (Home Assistant 2024.12 and newer); which device classes, units
// and state classes go together was read out of Home Assistant core 2026.4.
//
// Home Assistant drops an entity whose unit does not fit its device class, and a
// whole device for one unknown key beside the components. So when this package is
// not certain of a class it leaves the class away: an entity without a class still
// shows its value.
//
// # Identity
//
// A meter is its serial number: the device is kmp_<serial>, its entities are
// kmp_<serial>_<register name>. Neither the line nor a topic is part of it, so a meter may
// move to another port and keep its history, and a new meter starts a new one.
//
// Where another reader has announced a sensor before, [Measurement] can carry its unique id, or the
// entity id by which Home Assistant keeps its statistics: the entity then goes on. Its component has
// another key than ours would, since Home Assistant keeps the id of a component that it has.
//
// # What explains a reading
//
// A meter with a [Device] DiagnosisTopic has entities that say why it is not read and how
// well it is. They depend on the bridge alone, so that they are there when the meter is not;
// "Problem", which repeats what the meter reports, is as available as the meter's values.
//
// # Kinds of numbers
//
// Lifetime counters have the state class total: with it a single false value
// repairs itself with the next one, while total_increasing would take it for the
// start of a new cycle and add the whole counter once more. Counters that can be
// reset at the meter are total_increasing. Counters that lost their leading digits, the extremes of
// a period, and settings have no state class, since a sum or a mean of them says nothing.
// Numbers that are worked out of several registers (ID 0) follow the same rules by their
// kind, unit and name; averages since midnight move with each reading and are measurements.
package discovery
