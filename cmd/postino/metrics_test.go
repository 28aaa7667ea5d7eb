package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
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
	fmt.Fprintf(late, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.7\r\n\r\n")
	_ = late.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	in := bufio.NewReader(late)
	if line, err := in.Peek(1); err == nil {
		t.Errorf("one more than %d has an answer: %q", maxScrapes, line)
	}
	idle[0].Close()
	_ = late.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(in, nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%+v, %v", resp, err)
	}
	resp.Body.Close()
}

// Metrics are told to whoever asks for this machine, by an address or by a name of its
// own, and not to a page that had its own name lead here.
func TestMetricsAreForRequestsToThisMachine(t *testing.T) {
	p := newPlace(t)
	const address = "127.0.0.7:19156"
	text := fmt.Sprintf("hostname = \"Web1.example.com\"\n[metrics]\nlisten = %q\nnames = [\"mail.metrics.example\"]\n", address)
	if err := os.WriteFile(p.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	p.start(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for host, want := range map[string]int{
		address: 200, "127.0.0.7": 200, "[::1]:19156": 200, "[::1]": 200, "192.0.2.1": 200,
		"localhost": 200, "localhost:19156": 200, "LOCALHOST.": 200, "web1.example.com:19156": 200, "web1": 200, "Mail.Metrics.Example": 200,
		"evil.example": 421, "evil.example:19156": 421, "127.0.0.7.evil.example": 421, "localhost.evil.example": 421,
		"web1.evil.example": 421, "metrics.example": 421, "web2": 421,
	} {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want || (want == 200) != bytes.Contains(body, []byte("postino_")) {
			t.Errorf("%s: %v, want %d; %v\n%.200s", host, resp.Status, want, err, body)
		}
	}
}
