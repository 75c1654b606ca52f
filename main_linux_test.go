package main

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"kmp2mqtt/kmp/sim"
)

// On a terminal, align writes one line over and over, not a line for each change.
func TestAlignOnTerminal(t *testing.T) {
	master, name, err := sim.OpenPTY("")
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	shown := make(chan string)
	go func() {
		var all []byte
		for p := make([]byte, 1024); !bytes.Contains(all, []byte("next step")); {
			n, err := master.Read(p)
			if all = append(all, p[:n]...); err != nil {
				break
			}
		}
		shown <- string(all)
	}()
	p := program{out: terminal, err: io.Discard}
	if status := p.run(t.Context(), []string{"align", "-for", "500ms", "sim://403?silence=true&timeout=100ms"}); status != exitFailed {
		t.Errorf("exit status %d", status)
	}
	got := <-shown
	terminal.Close()
	master.Close()
	if !strings.Contains(got, "\r["+strings.Repeat(".", 20)+"]  0/1  good  no echo") || strings.Count(got, "\x1b[K") != 1 {
		t.Errorf("%q", got)
	}
}
