package cmd_test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"postino/delivery/relay/servertest"
)

// listening is a box whose runner takes mail on a port of the loopback, for a server
// that takes everything.
func listening(t testing.TB) (b *box, r *runner, port int) {
	t.Helper()
	s, b := plainRelay(t)
	b.giveTo(spoolUID)
	port = servertest.FreePort(t)
	b.configure("[smtp]\nlisten = [\"127.0.0.1:" + fmt.Sprint(port) + "\"]\n" + relayTo(s.Port()))
	return b, b.start(), port
}

// Programs that only speak SMTP submit by a port of the loopback, several messages in a
// session, and it is recorded whose they are: by IPv4, and by sockets for both families.
func TestSMTPOnTheLoopbackIsTaken(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b, _, port := listening(t)
	const python = `import smtplib, socket, sys
class Wide(smtplib.SMTP):
    def _get_socket(self, host, port, timeout):
        s = socket.socket(socket.AF_INET6); s.settimeout(180); s.connect(("::ffff:127.0.0.1", port)); return s
for kind in (smtplib.SMTP, Wide):
    s = kind("127.0.0.1", int(sys.argv[1]), timeout=180)
    for n in range(2):
        s.sendmail("app@web.test", ["alice@example.org", "root"], b"Subject: by Python\n\n.\n..dots\n")
    s.quit()
`
	const node = `require("nodemailer").createTransport({host: "127.0.0.1", port: +process.argv[1], ignoreTLS: true,
  connectionTimeout: 180000, greetingTimeout: 180000, socketTimeout: 180000})
.sendMail({from: "app@web.test", to: "alice@example.org", subject: "by Node", text: "hi"}, (err, info) => { if (err) { console.error(err); process.exit(1) } })`
	b.succeed(as(strayUID, b.command("", needs(t, "python3", "python3"), "-c", python, fmt.Sprint(port))))
	needsFile(t, "/usr/share/nodejs/nodemailer", "node-nodemailer")
	cmd := b.command("", needs(t, "node", "nodejs"), "-e", node, fmt.Sprint(port))
	cmd.Env = append(cmd.Env, "NODE_PATH=/usr/share/nodejs")
	b.succeed(as(nobodyUID, cmd))
	b.log.awaitN(t, 5, "msg=finished")
	b.log.awaitN(t, 4, "msg=accepted", "via=tcp", fmt.Sprintf("uid=%d", strayUID))
	b.log.awaitN(t, 1, "msg=accepted", "via=tcp", fmt.Sprintf("uid=%d", nobodyUID))
	if tr := b.trace("by Node"); tr.Via != "tcp" || tr.UID != nobodyUID {
		t.Errorf("trace %+v", tr)
	}
}

// Who closes the connection before he is asked who he is is nobody, not root; a
// browser that is made to send a form to the port gets nothing sent; and the name of a
// submission is not believed there.
func TestSMTPOnTheLoopbackKnowsWhoCalls(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b, r, port := listening(t)
	const hasty = `import socket, struct, sys
mail = b"EHLO %s\r\nMAIL FROM:<app@web.test>\r\nRCPT TO:<alice@example.org>\r\nDATA\r\nSubject: hasty\r\n\r\nhi\r\n.\r\nQUIT\r\n" % (b"0" * 31 + b"1.submission.invalid")
for n in range(60):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])), 180)
    s.sendall(mail)
    if n % 3 == 1: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if n % 3 == 2: s.shutdown(socket.SHUT_WR)
    s.close()
`
	if err := r.cmd.Process.Signal(syscall.SIGSTOP); err != nil { // it asks when they have gone
		t.Fatal(err)
	}
	b.succeed(as(strayUID, b.command("", needs(t, "python3", "python3"), "-c", hasty, fmt.Sprint(port))))
	if err := r.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const form = "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: x\r\nAccept: */*\r\nContent-Length: 200\r\n\r\n" +
		"EHLO web\r\nMAIL FROM:<a@web.test>\r\nRCPT TO:<victim@example.org>\r\nDATA\r\nSubject: by a browser\r\n\r\nhi\r\n.\r\n"
	if _, err := conn.Write([]byte(form)); err != nil {
		t.Fatal(err)
	}
	// One in order behind them all: whatever was taken of the others is in the log.
	const orderly = `import smtplib, sys
smtplib.SMTP("127.0.0.1", int(sys.argv[1]), timeout=180).sendmail("app@web.test", "alice@example.org", b"Subject: orderly\n\nhi\n")`
	b.succeed(as(nobodyUID, exec.Command(needs(t, "python3", "python3"), "-c", orderly, fmt.Sprint(port))))
	b.log.await(t, "msg=accepted", fmt.Sprintf("uid=%d", nobodyUID))
	log := b.log.String()
	for line := range strings.Lines(log) {
		if strings.Contains(line, "msg=accepted") && (strings.Contains(line, "uid=0 ") || strings.HasSuffix(line, "uid=0\n") || strings.Contains(line, "a@web.test ")) {
			t.Errorf("taken: %s", line)
		}
		if strings.Contains(line, "accepted again") {
			t.Errorf("the name of a submission is believed: %s", line)
		}
	}
}

// Any user can have taken a port while the runner was not there: what does not come by
// it is delivered all the same, and so is that when the port is free.
func TestPortThatIsTakenKeepsNoOtherMailWaiting(t *testing.T) {
	t.Parallel()
	var taken [2]net.Listener
	for i, address := range []string{"127.0.0.11:19125", "127.0.0.11:19154"} { // which no other test can be given
		var err error
		if taken[i], err = net.Listen("tcp", address); err != nil {
			t.Fatal(err)
		}
		defer taken[i].Close()
	}
	s, b := plainRelay(t)
	b.configure(fmt.Sprintf("[smtp]\nlisten = [%q]\n[metrics]\nlisten = %q\n", taken[0].Addr(), taken[1].Addr()) + relayTo(s.Port()))
	r := b.start()
	for _, key := range []string{"key=smtp.listen", "key=metrics.listen"} {
		b.log.await(t, "level=ERROR", "port not open", key)
	}
	b.sendmail("Subject: by the socket\n\nhi\n", "alice@example.org")
	b.log.await(t, "msg=finished")
	for _, l := range taken {
		l.Close()
	}
	for _, key := range []string{"key=smtp.listen", "key=metrics.listen"} {
		b.log.await(t, "port open at last", key)
	}
	conn, err := net.Dial("tcp", taken[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	greeting := make([]byte, 3)
	if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "220" {
		t.Errorf("%q, %v", greeting, err)
	}
	r.stop()
}
