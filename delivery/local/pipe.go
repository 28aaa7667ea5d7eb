package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"postino/config"
	"postino/spool"
)

const (
	// pipeWait is how long a program may take for a message.
	pipeWait = 10 * time.Minute
	// maxSaid is how much of a program's output is kept, in octets: a reply is a line.
	maxSaid = 500
	// outputWait is how long the output of a program that has ended may stay open:
	// processes that it left behind may have it. What they say is not waited for.
	outputWait = time.Second
)

// runPipe has the program of the transport take a message for one recipient: on its
// standard input, in lines that end in LF, with the two fields of final delivery first.
// No shell is involved, and what the recipient or sender is called is never an option.
func (s *Store) runPipe(ctx context.Context, l *letter) spool.Reply {
	words, err := s.words(l)
	if err != nil {
		return reply(err)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Env = []string{
		"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8",
		"USER=" + l.to.Local, "LOGNAME=" + l.to.Local, "RECIPIENT=" + l.to.String(), "SENDER=" + l.message.Sender.String(),
	}
	return feed(ctx, cmd, func(w io.Writer) error { return l.write(w, false) })
}

// feed runs a program, with what write writes as its standard input, for pipeWait at
// most.
func feed(ctx context.Context, cmd *exec.Cmd, write func(io.Writer) error) spool.Reply {
	ctx, cancel := context.WithTimeout(ctx, pipeWait)
	defer cancel()
	var said output
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", &said, &said
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.WaitDelay = outputWait
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return reply(err)
	}
	kill := func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	defer context.AfterFunc(ctx, kill)()
	writeErr := write(in)
	if writeErr != nil && !errors.Is(writeErr, syscall.EPIPE) {
		kill() // a message that was cut off must not look like a whole one
		_ = cmd.Wait()
		return reply(writeErr)
	}
	_ = in.Close()
	// It has taken the message, whoever has its output: to have it wait would be to
	// deliver it again.
	if err = cmd.Wait(); errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err == nil && writeErr != nil {
		err = errors.New("it did not read the whole message")
	}
	return said.verdict(ctx, err)
}

// words are the program and its arguments for a message. No address begins with a
// hyphen (see package address), so that none is an option.
func (s *Store) words(l *letter) ([]string, error) {
	marks := []struct {
		name string
		fill func() (string, error)
	}{
		{config.UserMark, func() (string, error) {
			owner, err := account(l.to.Local)
			if err != nil {
				return "", err
			}
			return owner.Username, nil
		}},
		{config.RecipientMark, func() (string, error) { return l.to.String(), nil }},
		{config.SenderMark, func() (string, error) { return l.message.Sender.String(), nil }},
	}
	words := strings.Fields(s.to.Path)
	for _, m := range marks {
		if !strings.Contains(s.to.Path, m.name) {
			continue
		}
		text, err := m.fill()
		if err != nil {
			return nil, err
		}
		for i := range words[1:] {
			words[1+i] = strings.ReplaceAll(words[1+i], m.name, text)
		}
	}
	return words, nil
}

// output keeps the beginning of what a program says.
type output struct{ text []byte }

func (o *output) Write(p []byte) (int, error) {
	o.text = append(o.text, p[:min(len(p), maxSaid-len(o.text))]...)
	return len(p), nil
}

// verdict is what the end of a program means. The statuses are those of sysexits(3)
// that say that the message can never be taken; every other one may be a slip that
// somebody mends, and the mail waits.
func (o *output) verdict(ctx context.Context, err error) spool.Reply {
	r := spool.Reply{Status: "2.0.0", Command: "pipe"}
	var exit *exec.ExitError
	switch {
	case err == nil:
	case ctx.Err() != nil:
		r.Status = "4.3.0"
		err = fmt.Errorf("not done within %v", pipeWait)
	case errors.As(err, &exit):
		permanent := map[int]string{65: "5.6.0", 67: "5.1.1", 68: "5.1.2", 69: "5.3.0", 77: "5.7.1"}
		if r.Status = permanent[exit.ExitCode()]; r.Status == "" {
			r.Status = "4.3.0"
		}
	default:
		r.Status = "4.3.0"
	}
	r.Text = "taken by the program"
	if err != nil {
		r.Text = "program: " + err.Error()
	}
	if said := strings.TrimSpace(string(o.text)); said != "" {
		r.Text += ": " + said
	}
	r.Text = spool.CleanText(r.Text)
	return r
}
