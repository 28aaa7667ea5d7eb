package relaytest

import (
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// dirVariable names the directory of a smarthost for a machine of a test.
const dirVariable = "POSTINO_TEST_SMARTHOST"

// A machine that has no Go has this test for its smarthost: on port 587 with STARTTLS,
// for who logs in as "web" with "secret". It writes its CA to ca.pem and each message it
// took as a line of JSON to mail, until it gets SIGTERM.
func TestServeAMachine(t *testing.T) {
	dir := os.Getenv(dirVariable)
	if dir == "" {
		t.Skip(dirVariable + " is not set: nobody wants a smarthost")
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	s := New(t, Options{TLS: StartTLS, Users: map[string]string{"web": "secret"}, Listen: "127.0.0.1:587"})
	ca, err := os.ReadFile(s.CAFile())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "ca.pem"), ca, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	mail, err := os.OpenFile(filepath.Join(dir, "mail"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer mail.Close()
	for written, over := 0, false; !over; {
		select {
		case <-end:
			s.Close()
			over = true
		case <-time.After(100 * time.Millisecond):
		}
		all := s.Messages()
		for _, m := range all[written:] {
			if err := json.NewEncoder(mail).Encode(struct {
				From, User, Data string
				To               []string
				TLS              bool
			}{m.From, m.User, string(m.Data), m.To, m.TLS}); err != nil {
				t.Fatal(err)
			}
		}
		written = len(all)
	}
}
