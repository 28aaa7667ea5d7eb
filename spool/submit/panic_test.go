package submit

import (
	"net"
	"strings"
	"testing"

	"postino/spool"
)

// poisonConn is a carrier that hits on a mistake.
type poisonConn struct{ carrier }

func (poisonConn) Read([]byte) (int, error)    { panic("poison") }
func (poisonConn) Write(p []byte) (int, error) { return len(p), nil }
func (poisonConn) Close() error                { return nil }

// A panic while a session is read ends that session and nothing else: the server
// recovers in its handlers alone.
func TestPanicWhileReadingIsAnError(t *testing.T) {
	var c net.Conn = newConn(poisonConn{}, spool.Origin{Via: spool.ViaSocket}, 0)
	for range 2 {
		if n, err := c.Read(make([]byte, 10)); n != 0 || err == nil || !strings.Contains(err.Error(), "panic while reading: poison") {
			t.Errorf("%d, %v", n, err)
		}
	}
}
