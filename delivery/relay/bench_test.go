package relay

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"postino/config"
)

// How fast messages of 2 KiB go to one server over twenty connections, and what one
// costs: with answers at once, and with each held back for 50 ms, as a round trip does.
//
//	go test -run '^$' -bench Deliver -benchtime 5000x ./delivery/relay
//
// The server is in the process, and is a part of what is measured.
func BenchmarkDeliver(b *testing.B) {
	for _, offer := range []string{"", "PIPELINING", "PIPELINING CHUNKING"} {
		for _, wait := range []time.Duration{0, 50 * time.Millisecond} {
			if offer == "" && wait > 0 {
				continue // it is known: five round trips
			}
			b.Run(fmt.Sprintf("%s/%v", strings.ReplaceAll(strings.TrimSpace("ESMTP "+offer), " ", "+"), wait), func(b *testing.B) { benchmarkDeliver(b, offer, wait) })
		}
	}
}

func benchmarkDeliver(b *testing.B, offer string, wait time.Duration) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	var taken atomic.Int64
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go swallow(conn, strings.Fields(offer), wait, &taken)
		}
	}()
	r, err := New(&config.Relay{
		Host: config.Hosts{"127.0.0.1"}, Port: listener.Addr().(*net.TCPAddr).Port, TLS: config.NoTLS,
		MaxConnections: 20, MessagesPerConnection: 100,
	}, patient(), "client.test", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	content := "Subject: benchmark\r\n\r\n" + strings.Repeat("0123456789 0123456789 0123456789 0123456789\r\n", 46)
	work := make(chan struct{})
	var workers sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range 20 * maxDepth {
		workers.Go(func() {
			for range work {
				r.Deliver(b.Context(), batch(content, "a@x.test"))
			}
		})
	}
	for range b.N {
		work <- struct{}{}
	}
	close(work)
	workers.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
	if n := taken.Load(); n != int64(b.N) {
		b.Fatalf("%d messages of %d were taken", n, b.N)
	}
}

// swallow is a server that takes everything, and holds its replies back for a while.
func swallow(conn net.Conn, offer []string, wait time.Duration, taken *atomic.Int64) {
	defer conn.Close()
	type reply struct {
		at   time.Time
		text string
	}
	replies := make(chan reply, 1<<10)
	defer close(replies)
	go func() {
		out := bufio.NewWriter(conn)
		for r := range replies {
			if d := time.Until(r.at); wait > 0 && d > 0 {
				out.Flush()
				time.Sleep(d)
			}
			out.WriteString(r.text)
			if len(replies) == 0 {
				out.Flush()
			}
		}
	}()
	say := func(text string) { replies <- reply{time.Now().Add(wait), text} }
	hello := "250-sink\r\n"
	for _, word := range offer {
		hello += "250-" + word + "\r\n"
	}
	say("220 sink\r\n")
	for in := bufio.NewReaderSize(conn, 64<<10); ; {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		switch string(line[:4]) {
		case "EHLO":
			say(hello + "250 8BITMIME\r\n")
		case "RCPT":
			say("250 2.1.5 ok\r\n")
		case "BDAT":
			n, _ := strconv.Atoi(strings.Fields(string(line))[1])
			if _, err := in.Discard(n); err != nil {
				return
			}
			taken.Add(1)
			say("250 2.0.0 taken\r\n")
		case "DATA":
			say("354 go\r\n")
			for string(line) != ".\r\n" {
				if line, err = in.ReadSlice('\n'); err != nil {
					return
				}
			}
			taken.Add(1)
			say("250 2.0.0 taken\r\n")
		case "QUIT":
			say("221 bye\r\n")
			io.Copy(io.Discard, in)
			return
		default:
			say("250 2.1.0 ok\r\n")
		}
	}
}
