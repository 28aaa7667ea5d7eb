package main

import (
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"postino/config"
)

// A log that nobody reads never stops who writes it, and it says what is missing.
func TestStalledLogStopsNobody(t *testing.T) { synctest.Test(t, stalledLogStopsNobody) }

func stalledLogStopsNobody(t *testing.T) {
	r, w := io.Pipe()
	out := newLogWriter(w)
	log := newLogger(out, config.LogStderr, config.Default(), time.UTC)
	const lines = 3 * maxLogBacklog / 100
	filler := strings.Repeat("x", 100)
	for i := range lines {
		log.Info("line", "n", i, "filler", filler) // would never return
	}
	text := make(chan string)
	go func() {
		b, _ := io.ReadAll(r)
		text <- string(b)
	}()
	out.close()
	w.Close()
	got := <-text
	first, rest, _ := strings.Cut(got, "\n")
	if !strings.Contains(first, "msg=line n=0 ") {
		t.Errorf("the first line is %.80q", first)
	}
	if !strings.Contains(rest, `level=WARN msg="log lines lost" n=`) {
		t.Error("nothing is said of the lost lines")
	}
	if n := strings.Count(got, "msg=line "); n < maxLogBacklog/300 || n >= lines {
		t.Errorf("%d of %d lines were written", n, lines)
	}
	if strings.Count(got, "\n") != strings.Count(got, "time=") {
		t.Error("a line is cut")
	}
}

func TestLogIsWhole(t *testing.T) { synctest.Test(t, logIsWhole) }

func logIsWhole(t *testing.T) {
	var text strings.Builder
	out := newLogWriter(&text)
	log := slog.New(slog.NewTextHandler(out, nil))
	for i := range 1000 {
		log.Info("line", "n", i)
	}
	out.close()
	if n := strings.Count(text.String(), "\n"); n != 1000 || strings.Contains(text.String(), "lost") {
		t.Errorf("%d lines were written, want 1000", n)
	}
}

// A pipe that nobody reads as the runner's standard error: it begins, works and ends.
func TestRunnerWithAStalledLogWorks(t *testing.T) {
	p := newPlace(t)
	id := p.store(t, 1500, "hello").String()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	fd := int(w.Fd()) // which makes it blocking
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = unix.Write(fd, make([]byte, 1))
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		t.Fatal(err)
	}
	cmd := p.command(0, "postino", "run")
	cmd.Stderr = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	p.await(t, cmd.Process.Pid)
	if r := p.run(t, 0, "postino", "hold", id); r.stdout != "1 message held\n" {
		t.Errorf("hold: %+v", r)
	}
	_ = cmd.Process.Signal(unix.SIGTERM)
	late(t, cmd)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}
