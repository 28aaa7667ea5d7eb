package handoff

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"postino/spool/address"
)

func TestRunnerGetsTheSessionByteForByte(t *testing.T) {
	dir := newSpool(t)
	r := startRunner(t, dir, polite)
	_, dropped, err := Submit(dir, small())
	if dropped || err != nil {
		t.Fatalf("Submit = %v, %v; want false, nil", dropped, err)
	}
	if got := r.heard(t); got != smallWire {
		t.Errorf("the runner got %q; want %q", got, smallWire)
	}
	if names := dropFiles(t, dir); len(names) != 0 {
		t.Errorf("drop/ holds %q; want nothing", names)
	}
}

func TestNullSenderIsEmptyBrackets(t *testing.T) {
	s := small()
	s.Sender = address.Address{}
	if got := string(s.opening()); !strings.Contains(got, "\r\nMAIL FROM:<> SIZE") {
		t.Errorf("opening = %q", got)
	}
}

func TestPermanentRefusalIsReportedAndNotDropped(t *testing.T) {
	for _, tt := range []struct {
		at, reply string
		want      Refused
	}{
		{"MAIL", "552 5.3.4 Too large\r\n", Refused{552, "5.3.4", "Too large"}},
		{"RCPT TO:<\"a b\"", "550 5.7.1 Not you\r\n", Refused{550, "5.7.1", "Not you"}},
		{"BDAT", "554-5.6.0 One\r\n554 5.6.0 Two\r\n", Refused{554, "5.6.0", "One Two"}},
		{"RCPT", "550 a\x1b[2Jb\x00\xff\r\n", Refused{550, "", "a?[2Jb??"}},
	} {
		dir := newSpool(t)
		startRunner(t, dir, but(tt.at, tt.reply))
		_, dropped, err := Submit(dir, small())
		var refused *Refused
		if dropped || !errors.As(err, &refused) || *refused != tt.want {
			t.Errorf("%q to %s: Submit = %v, %v; want %v", tt.reply, tt.at, dropped, err, &tt.want)
		}
		if names := dropFiles(t, dir); len(names) != 0 {
			t.Errorf("%q to %s: drop/ holds %q; want nothing", tt.reply, tt.at, names)
		}
	}
}

func TestAnyDoubtEndsInDropFile(t *testing.T) {
	long := strings.Repeat("x", maxReplyLine)
	for _, at := range []string{"", "EHLO", "MAIL", "RCPT TO:<bob", "RCPT TO:<\"a b\"", "BDAT"} {
		for _, reply := range []string{
			"", silence, "451 4.3.0 Later\r\n", "250", "250 Ok\n", "hello\r\n", "\r\n", "650 ?\r\n",
			"250-a\r\n251 b\r\n", "250 " + long + "\r\n", strings.Repeat("250-x\r\n", maxReplyLines) + "250 x\r\n",
			"354 Go\r\n", "٢٥٠ Ok\r\n",
		} {
			dir := newSpool(t)
			startRunner(t, dir, but(at, reply))
			_, dropped, err := submit(dir, small(), 50*time.Millisecond)
			if !dropped || err != nil {
				t.Errorf("%.30q to %q: submit = %v, %v; want true, nil", reply, at, dropped, err)
				continue
			}
			wantDrop(t, dir, smallWire)
		}
	}
}

// The wait for a runner is in turns, of which a machine that stands still takes one:
// the answer to come in the next is heard.
func TestOneTurnWithoutAnAnswerIsNoDoubt(t *testing.T) {
	const timeout = 10 * time.Second
	dir := newSpool(t)
	startRunner(t, dir, func(command string) string {
		if command == "" || strings.HasPrefix(command, "BDAT") {
			time.Sleep(timeout / ioTurns * 3 / 2)
		}
		return polite(command)
	})
	if _, dropped, err := submit(dir, small(), timeout); dropped || err != nil {
		t.Errorf("submit = %v, %v; want false, nil", dropped, err)
	}
}

// A runner that refuses us, and not the message, is no reason to refuse mail.
func TestRefusedConnectionEndsInDropFile(t *testing.T) {
	for _, at := range []string{"", "EHLO"} {
		dir := newSpool(t)
		startRunner(t, dir, but(at, "554 5.3.2 No\r\n"))
		if _, dropped, err := Submit(dir, small()); !dropped || err != nil {
			t.Errorf("554 to %q: Submit = %v, %v; want true, nil", at, dropped, err)
		}
	}
}

func TestStaleSocketEndsInDropFile(t *testing.T) {
	dir := newSpool(t)
	if err := os.WriteFile(dir+"/"+socketName, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, dropped, err := Submit(dir, small()); !dropped || err != nil {
		t.Fatalf("Submit = %v, %v; want true, nil", dropped, err)
	}
	wantDrop(t, dir, smallWire)
}

func TestStrangersServerGetsNothing(t *testing.T) {
	needRoot(t)
	dir := newSpool(t)
	r := serve(t, listenAs(t, dir, nobody), polite)
	if _, dropped, err := Submit(dir, small()); !dropped || err != nil {
		t.Fatalf("Submit = %v, %v; want true, nil", dropped, err)
	}
	if got := r.heard(t); got != "" {
		t.Errorf("uid %d got %q; want nothing", nobody, got)
	}
	wantDrop(t, dir, smallWire)
}

func TestOwnersServerIsTrusted(t *testing.T) {
	needRoot(t)
	dir := newSpool(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	serve(t, listenAs(t, dir, nobody), polite)
	if _, dropped, err := Submit(dir, small()); dropped || err != nil {
		t.Errorf("Submit = %v, %v; want false, nil", dropped, err)
	}
}

func TestOrdinaryUserIsServed(t *testing.T) {
	needRoot(t)
	dir := newSpool(t)
	r := startRunner(t, dir, polite)
	if got := submitAs(t, dir, nobody); got != "dropped=false err=<nil>" {
		t.Fatalf("as uid %d: %s", nobody, got)
	}
	if got := r.heard(t); got != smallWire {
		t.Errorf("the runner got %q; want %q", got, smallWire)
	}
}

// The replies to 3,000 recipients are more than a socket buffer holds. If they
// were not read in between, both sides would wait until the time is over.
func TestManyRecipientsDoNotBlock(t *testing.T) {
	dir := newSpool(t)
	s := small()
	s.Recipients = nil
	for i := range 3000 {
		local := "u" + strconv.Itoa(i) + strings.Repeat("x", 200) // their sum is too large as well
		s.Recipients = append(s.Recipients, Recipient{Address: address.Address{Local: local, Domain: "example.net"}})
	}
	s.Body = bufferOf(strings.Repeat("x", maxMemory-100))
	r := startRunner(t, dir, but("RCPT", "250 2.1.5 "+strings.Repeat("Ok", 500)+"\r\n"))
	if _, dropped, err := Submit(dir, s); dropped || err != nil {
		t.Fatalf("Submit = %v, %v; want false, nil", dropped, err)
	}
	if got := r.heard(t); strings.Count(got, "RCPT TO:") != 3000 || int64(len(got)) < s.size() {
		t.Errorf("the runner got %d recipients and %d octets; want 3000, and more than %d",
			strings.Count(got, "RCPT TO:"), len(got), s.size())
	}
}

func TestLargeMessageIsAnnouncedBeforeItIsSent(t *testing.T) {
	dir := newSpool(t)
	s := small()
	s.Body = NewBuffer(dir)
	defer s.Body.Close()
	text := bytes.Repeat([]byte("0123456789abcde\n"), maxMemory/8)
	if _, err := s.Body.ReadFrom(bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	r := startRunner(t, dir, func(command string) string {
		if strings.HasPrefix(command, "MAIL") {
			return "552 5.3.4 Too large\r\n"
		}
		return polite(command)
	})
	var refused *Refused
	if _, _, err := Submit(dir, s); !errors.As(err, &refused) {
		t.Errorf("Submit = %v; want a refusal", err)
	}
	if got := r.heard(t); strings.Contains(got, "BDAT") {
		t.Errorf("content was sent after the refusal")
	}
}

func TestLargeMessageArrivesWhole(t *testing.T) {
	dir := newSpool(t)
	s := small()
	s.Body = NewBuffer(dir)
	defer s.Body.Close()
	text := strings.Repeat("0123456789abcd\r\n", maxMemory/4)
	if _, err := s.Body.ReadFrom(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	r := startRunner(t, dir, polite)
	if _, dropped, err := Submit(dir, s); dropped || err != nil {
		t.Fatalf("Submit = %v, %v; want false, nil", dropped, err)
	}
	if got := r.heard(t); !strings.HasSuffix(got, " LAST\r\n"+string(s.Head)+text) {
		t.Errorf("the runner got %d octets; want a session that ends in the %d sent", len(got), s.size())
	}
}

// A runner may refuse and close while content is under way.
func TestRefusalIsFoundAfterBrokenPipe(t *testing.T) {
	dir := newSpool(t)
	s := small()
	s.Body = bufferOf(strings.Repeat("x", maxMemory-100))
	l, err := net.Listen("unix", dir+"/"+socketName)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "220 a\r\n250 b\r\n250 c\r\n250 d\r\n250 e\r\n250 f\r\n")
		in := bufio.NewReader(c)
		for line := ""; !strings.HasPrefix(line, "BDAT"); {
			if line, err = in.ReadString('\n'); err != nil {
				return
			}
		}
		io.WriteString(c, "552 5.3.4 Too large\r\n")
	}()
	var refused *Refused
	if _, _, err := Submit(dir, s); !errors.As(err, &refused) || refused.Code != 552 {
		t.Errorf("Submit = %v; want 552", err)
	}
}

// A path that is too long for an address still leads to the runner.
func TestLongPathReachesTheRunner(t *testing.T) {
	short := newSpool(t)
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100), "spool")
	if err := os.MkdirAll(filepath.Dir(long), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(short, long); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(long, short); err != nil {
		t.Fatal(err)
	}
	startRunner(t, short, polite)
	if _, dropped, err := Submit(long, small()); dropped || err != nil {
		t.Errorf("dropped %v, %v; want the runner to have it", dropped, err)
	}
}
