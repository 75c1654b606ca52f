package link

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"kmp2mqtt/kmp"
)

// adapter is a USB serial adapter that is plugged in, and one of its ports.
type adapter struct {
	device          string // such as /dev/ttyUSB0
	vendor, product string // four hexadecimal digits each, in lower case
	serial          string // often the same for all of a kind, or empty
}

// url returns the line that names this adapter.
func (a adapter) url() string { return usbEndpoint(a.vendor+":"+a.product, a.serial) }

// String returns the adapter's line and the port it has at the moment.
func (a adapter) String() string { return a.url() + " (" + a.device + ")" }

// errSeveral means that more than one port answers to a line's USB ids.
var errSeveral = errors.New("more than one serial port has these USB ids")

// openUSB finds the adapter's port anew each time: after a replug it may have another
// number. From there on it is a serial port as any other.
func openUSB(t Target, root string) (kmp.Line, error) {
	device, err := findUSB(t, root)
	if err != nil {
		return nil, err
	}
	t.Device = device
	return openSerial(t)
}

// findUSB returns the path of the one port that has the target's ids, and its serial
// number if it names one. root is the folder above the system's sys and dev.
func findUSB(t Target, root string) (string, error) {
	all, err := adapters(root)
	if err != nil {
		return "", &Error{Op: "open", Line: t.String(), Err: err, Advice: "this system does not tell its USB devices: use the device's path, as in /dev/ttyUSB0"}
	}
	var found []adapter
	for _, a := range all {
		if a.vendor+":"+a.product == t.USB && (t.Serial == "" || a.serial == t.Serial) {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		advice := "plug the adapter in; lsusb shows the ids of what is there"
		if len(all) > 0 {
			advice = "plug the adapter in, or take one that is there: " + list(all)
		}
		return "", &Error{Op: "open", Line: t.String(), Err: fmt.Errorf("no such USB serial adapter: %w", fs.ErrNotExist), Advice: advice}
	case 1:
		return found[0].device, nil
	}
	advice := "name one by its serial number: " + list(found)
	for i, a := range found {
		if a.serial == "" || slices.ContainsFunc(found[:i], func(b adapter) bool { return a.serial == b.serial }) {
			advice = "their serial numbers do not tell them apart (" + list(found) + "): name one by where it is plugged in, with its path in /dev/serial/by-path"
		}
	}
	return "", &Error{Op: "open", Line: t.String(), Err: errSeveral, Advice: advice}
}

// list names adapters in one log line.
func list(all []adapter) string {
	const most = 8
	names := make([]string, 0, most)
	for _, a := range all {
		if len(names) == most {
			return strings.Join(names, ", ") + ", ..."
		}
		names = append(names, a.String())
	}
	return strings.Join(names, ", ")
}

// adapters returns the USB serial ports that are there, by name.
func adapters(root string) ([]adapter, error) {
	folder := filepath.Join(root, "sys", "class", "tty")
	entries, err := os.ReadDir(folder) // sorted
	if err != nil {
		return nil, err
	}
	var all []adapter
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, "ttyUSB") && !strings.HasPrefix(name, "ttyACM") {
			continue
		}
		if a, ok := adapterOf(filepath.Join(folder, name, "device")); ok {
			a.device = filepath.Join(root, "dev", name)
			all = append(all, a)
		}
	}
	return all, nil
}

// adapterOf returns the USB device above a port: two folders up for ttyUSB0, one for
// ttyACM0. One that is being unplugged has no answer any more.
func adapterOf(port string) (adapter, bool) {
	folder, err := filepath.EvalSymlinks(port)
	if err != nil {
		return adapter{}, false
	}
	for range 4 {
		vendor, product := attribute(folder, "idVendor"), attribute(folder, "idProduct")
		if vendor != "" && product != "" {
			return adapter{vendor: strings.ToLower(vendor), product: strings.ToLower(product), serial: attribute(folder, "serial")}, true
		}
		folder = filepath.Dir(folder)
	}
	return adapter{}, false
}

// attribute returns a value that the system tells of a device, or nothing.
func attribute(folder, name string) string {
	value, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(value))
}
