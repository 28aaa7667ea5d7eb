package main

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// Whoever may connect for metrics uses up a few descriptors and no more: the runner
// needs them for mail. Who has to wait has an answer in the end.
func TestScrapersAreFew(t *testing.T) {
	p := newPlace(t)
	const address = "127.0.0.7:19155"
	if err := os.WriteFile(p.config, []byte(fmt.Sprintf("[metrics]\nlisten = %q\n", address)), 0o644); err != nil {
		t.Fatal(err)
	}
	p.start(t, 0)
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var idle []net.Conn
	for range maxScrapes {
		idle = append(idle, dial())
	}
	late := dial()
	fmt.Fprintf(late, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
	_ = late.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	in := bufio.NewReader(late)
	if line, err := in.Peek(1); err == nil {
		t.Errorf("one more than %d has an answer: %q", maxScrapes, line)
	}
	idle[0].Close()
	_ = late.SetReadDeadline(time.Now().Add(time.Minute))
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", resp, err)
	}
	resp.Body.Close()
}
