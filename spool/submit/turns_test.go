package submit

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"postino/spool"
)

// still is a carrier on a machine that stands still while the server waits: when it
// goes on the deadline is over, and what the client sent is there.
type still struct {
	carrier
	length time.Duration
	moved  bool
}

func (c *still) Read(p []byte) (int, error) {
	if !c.moved {
		c.moved = true
		time.Sleep(c.length)
		return 0, os.ErrDeadlineExceeded
	}
	return copy(p, "NOOP\r\n"), io.EOF
}

func (c *still) Write(p []byte) (int, error) { return len(p), nil }
func (c *still) Close() error                { return nil }

// Neither a client nor one that has a place is held to what the machine took.
func TestMachineThatStoodStillIsNoSilentClient(t *testing.T) {
	for _, paced := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			c := newConn(&still{length: 2 * idleTimeout}, spool.Origin{Via: spool.ViaSocket}, idleTimeout)
			c.paced.Store(paced)
			if text, err := io.ReadAll(c); string(text) != "NOOP\r\n" || err != nil {
				t.Errorf("paced %v: %q, %v", paced, text, err)
			}
		})
	}
}

// A silent client is waited for as long as it may be silent, as long as it may keep a
// place, or to the end of its session.
func TestSilentClientIsLeft(t *testing.T) {
	for name, tt := range map[string]struct {
		paced bool
		until time.Duration
		want  time.Duration
	}{
		"silent":                 {false, time.Hour, idleTimeout},
		"with a place":           {true, time.Hour, placeGrace},
		"at its session's end":   {false, readTurn * 5 / 2, readTurn * 5 / 2},
		"past its session's end": {true, -time.Second, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			began := time.Now()
			c := newConn(server, spool.Origin{Via: spool.ViaSocket}, idleTimeout)
			c.until = began.Add(tt.until)
			c.paced.Store(tt.paced)
			n, err := c.Read(make([]byte, 10))
			if took := time.Since(began); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != tt.want {
				t.Errorf("%s: %d, %v after %v, want %v", name, n, err, took, tt.want)
			}
		})
	}
}
