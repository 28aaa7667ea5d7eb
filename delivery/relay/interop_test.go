package relay

import (
	"io"
	"net"
	"sync"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"postino/config"
)

// mailbox is a go-smtp server's backend that keeps what it gets.
type mailbox struct {
	mu    sync.Mutex
	user  string
	from  string
	to    []string
	mails []string
}

func (m *mailbox) NewSession(*smtp.Conn) (smtp.Session, error) { return m, nil }

func (m *mailbox) AuthMechanisms() []string { return []string{sasl.Plain} }

func (m *mailbox) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, secret string) error {
		if secret != password {
			return smtp.ErrAuthFailed
		}
		m.user = user
		return nil
	}), nil
}

func (m *mailbox) Mail(from string, _ *smtp.MailOptions) error {
	m.from = from
	return nil
}

func (m *mailbox) Rcpt(to string, _ *smtp.RcptOptions) error {
	if to == "no@x.test" {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "unknown"}
	}
	m.to = append(m.to, to)
	return nil
}

func (m *mailbox) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mails = append(m.mails, string(b))
	return err
}

func (m *mailbox) Reset()        {}
func (m *mailbox) Logout() error { return nil }

// A server that we did not write understands us.
func TestInteropWithGoSMTP(t *testing.T) {
	box := &mailbox{}
	server := smtp.NewServer(box)
	server.AllowInsecureAuth = true
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(listener) })
	t.Cleanup(func() { server.Close(); serving.Wait() })

	r := newRelay(t, &config.Relay{
		Host: config.Hosts{"127.0.0.1"}, Port: listener.Addr().(*net.TCPAddr).Port, TLS: config.NoTLS,
		Username: "u", Password: password, MaxConnections: 1, MessagesPerConnection: 10,
	}, patient())
	const content = "A: b\r\n\r\n.\r\n..x\r\n"
	for range 2 {
		replies := r.Deliver(t.Context(), batch(content, "a@x.test", "no@x.test"))
		want{"2.0.0", 250, "dot", ""}.check(t, replies[0])
		want{"5.1.1", 550, "RCPT", "^unknown$"}.check(t, replies[1])
	}
	r.Close()
	box.mu.Lock()
	defer box.mu.Unlock()
	if len(box.mails) != 2 || box.mails[0] != content || box.mails[1] != content || box.user != "u" || box.from != "s@sender.test" {
		t.Errorf("got %+v", box)
	}
}
