package link

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// usbTree is a system with USB serial adapters as Linux shows them: each port's device
// is a link into the tree of devices, where its adapter is one or two folders up.
type usbTree struct {
	*testing.T
	root string
}

func newUSBTree(t *testing.T) usbTree {
	t.Helper()
	tree := usbTree{t, t.TempDir()}
	for _, name := range []string{"sys/class/tty/tty0", "sys/class/tty/console", "dev"} {
		tree.must(os.MkdirAll(tree.path(name), 0o755))
	}
	return tree
}

func (u usbTree) path(name string) string { return filepath.Join(u.root, filepath.FromSlash(name)) }

func (u usbTree) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

// plug adds an adapter at a place such as 1-1.2, with the number that its port gets,
// and a device node that leads to the terminal.
func (u usbTree) plug(place, port, ids, serial, terminal string) {
	u.Helper()
	adapter := "sys/devices/pci0000:00/usb1/" + place
	above := adapter + "/" + place + ":1.0"
	device := above
	if strings.HasPrefix(port, "ttyUSB") {
		device = above + "/" + port
	}
	class := device + "/tty/" + port
	u.must(os.MkdirAll(u.path(class), 0o755))
	vendor, product, _ := strings.Cut(ids, ":")
	for name, value := range map[string]string{"idVendor": vendor, "idProduct": product, "serial": serial} {
		if value != "" {
			u.must(os.WriteFile(u.path(adapter+"/"+name), []byte(value+"\n"), 0o600))
		}
	}
	u.must(os.MkdirAll(u.path("sys/class/tty"), 0o755))
	if _, err := os.Lstat(u.path(class + "/device")); err != nil {
		u.must(os.Symlink(u.path(device), u.path(class+"/device")))
	}
	u.must(os.Symlink(u.path(class), u.path("sys/class/tty/"+port)))
	u.must(os.Symlink(terminal, u.path("dev/"+port)))
}

func (u usbTree) unplug(place, port string) {
	u.Helper()
	u.must(os.Remove(u.path("dev/" + port)))
	u.must(os.Remove(u.path("sys/class/tty/" + port)))
	u.must(os.RemoveAll(u.path("sys/devices/pci0000:00/usb1/" + place)))
}

func TestFindUSB(t *testing.T) {
	tree := newUSBTree(t)
	tree.plug("1-1", "ttyUSB0", "10c4:ea60", "0001", "/dev/null")
	tree.plug("1-2", "ttyUSB1", "10C4:EA60", "0002", "/dev/null")
	tree.plug("1-3", "ttyACM0", "2341:0043", "85 3/x", "/dev/null")
	tree.plug("1-4", "ttyUSB2", "1a86:7523", "", "/dev/null")
	tree.plug("1-5", "ttyUSB3", "1a86:7523", "", "/dev/null")
	tree.plug("1-6", "ttyUSB4", "0403:6001", "A9", "/dev/null")
	for _, tt := range []struct {
		url, want string
		is        error
		texts     []string
	}{
		{url: "usb://10c4:ea60/0001", want: "ttyUSB0"},
		{url: "usb://10C4:EA60/0002", want: "ttyUSB1"},
		{url: "usb://2341:0043", want: "ttyACM0"},
		{url: "usb://2341:0043/85%203%2Fx", want: "ttyACM0"},
		{url: "usb://0403:6001", want: "ttyUSB4"},
		{url: "usb://0403:6015", is: fs.ErrNotExist, texts: []string{"plug the adapter in", "usb://0403:6001/A9 (", "usb://1a86:7523 (", "usb://2341:0043/85%203%2Fx ("}},
		{url: "usb://0403:6001/a9", is: fs.ErrNotExist, texts: []string{"usb://0403:6001/A9 ("}},
		{url: "usb://10c4:ea60", is: errSeveral, texts: []string{"name one by its serial number", "usb://10c4:ea60/0001 (", "usb://10c4:ea60/0002 ("}},
		{url: "usb://1a86:7523", is: errSeveral, texts: []string{"do not tell them apart", "ttyUSB2", "ttyUSB3", "/dev/serial/by-path"}},
	} {
		t.Run(tt.url, func(t *testing.T) {
			target, err := Parse(tt.url)
			if err != nil {
				t.Fatal(err)
			}
			got, err := findUSB(target, tree.root)
			if tt.is == nil {
				if want := tree.path("dev/" + tt.want); err != nil || got != want {
					t.Errorf("found %q, %v; want %q", got, err, want)
				}
				return
			}
			var e *Error
			if !errors.Is(err, tt.is) || !errors.As(err, &e) || e.Op != "open" || e.Line != target.String() {
				t.Fatalf("%v, want %v", err, tt.is)
			}
			wantText(t, err, tt.texts...)
		})
	}
}

func TestFindUSBWithoutAny(t *testing.T) {
	target, err := Parse("usb://10c4:ea60")
	if err != nil {
		t.Fatal(err)
	}
	tree := newUSBTree(t)
	// One that is being unplugged: its port is still listed.
	tree.must(os.Symlink(tree.path("sys/gone"), tree.path("sys/class/tty/ttyUSB0")))
	_, err = findUSB(target, tree.root)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	wantText(t, err, "lsusb")
	_, err = findUSB(target, tree.path("nowhere"))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	wantText(t, err, "use the device's path")
}

// An adapter that comes back with another number is found again; meanwhile the line
// has ended, and opening it says that nothing is there.
func TestUSBReplug(t *testing.T) {
	tree := newUSBTree(t)
	target, err := Parse("usb://10c4:ea60/0001")
	if err != nil {
		t.Fatal(err)
	}
	meter, name := openPTY(t)
	tree.plug("1-1", "ttyUSB0", "10c4:ea60", "0001", name)
	line, err := openUSB(target, tree.root)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	if _, err := openUSB(target, tree.root); !errors.Is(err, ErrBusy) {
		t.Errorf("a second line: %v", err)
	}
	tree.unplug("1-1", "ttyUSB0")
	if err := meter.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = line.Read(make([]byte, 1))
	if !errors.Is(err, io.EOF) {
		t.Errorf("Read: %v, want io.EOF", err)
	}
	wantText(t, err, "usb://10c4:ea60/0001")
	if err := line.Close(); err != nil {
		t.Error(err)
	}
	if _, err := openUSB(target, tree.root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("while it is away: %v", err)
	}

	meter, name = openPTY(t)
	tree.plug("1-1", "ttyUSB5", "10c4:ea60", "0001", name)
	line, err = openUSB(target, tree.root)
	if err != nil {
		t.Fatal(err)
	}
	defer line.Close()
	if _, err := line.Write([]byte{0x80}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 1)
	if _, err := io.ReadFull(meter, got); err != nil || got[0] != 0x80 {
		t.Errorf("the new port got % X, %v", got, err)
	}
}

// The adapter is there and its device node is not: a container that it was not passed to.
func TestUSBWithoutNode(t *testing.T) {
	tree := newUSBTree(t)
	target, err := Parse("usb://10c4:ea60")
	if err != nil {
		t.Fatal(err)
	}
	tree.plug("1-1", "ttyUSB0", "10c4:ea60", "0001", filepath.Join(tree.root, "nothing"))
	_, err = openUSB(target, tree.root)
	var e *Error
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &e) || e.Line != "usb://10c4:ea60" {
		t.Error(err)
	}
}

// A target made by hand with ids that are nowhere is no reason to touch anything.
func TestOpenUSB(t *testing.T) {
	_, err := Open(context.Background(), usbTarget("ffff:ffff", "", nil))
	var e *Error
	if !errors.Is(err, fs.ErrNotExist) || !errors.As(err, &e) || e.Line != "usb://ffff:ffff" {
		t.Error(err)
	}
}
