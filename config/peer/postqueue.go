package peer

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"
)

const (
	// commandWait bounds each call of a program of Postfix: it may have a hundred
	// thousand files to look through, and a message of 1 GiB to print.
	commandWait = 5 * time.Minute
	// maxQueueLine bounds a line of postqueue -j, in octets: ten thousand recipients
	// with their reasons.
	maxQueueLine = 16 << 20
)

// postfixQueue asks postqueue, since the form of the files is Postfix's own.
func postfixQueue(dir string) (list []Waiting, bad []error, err error) {
	p := postfixPrograms{dir}
	if _, err := p.output("postfix", "status"); err == nil {
		return nil, nil, errors.New("postfix is running, and would send the mail as well: postfix stop")
	}
	out, err := p.output("postqueue", "-j")
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil, errors.New("postqueue is not there, and only Postfix's own programs read its queue: install Postfix again, take its queue over, and then have postino take its place")
	}
	if err != nil {
		return nil, nil, err
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, maxQueueLine)
	for lines.Scan() {
		var m struct {
			Queue      string `json:"queue_name"`
			ID         string `json:"queue_id"`
			Arrived    int64  `json:"arrival_time"`
			Sender     string `json:"sender"`
			Recipients []struct {
				Address string `json:"address"`
			} `json:"recipients"`
		}
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			bad = append(bad, fmt.Errorf("postqueue: %w", err))
			continue
		}
		w := Waiting{ID: m.ID, Sender: m.Sender, Arrived: time.Unix(m.Arrived, 0)}
		if w.Sender == "MAILER-DAEMON" { // how it shows the null one
			w.Sender = ""
		}
		for _, r := range m.Recipients {
			w.Recipients = append(w.Recipients, r.Address)
		}
		switch {
		case m.Queue == "hold":
			bad = append(bad, fmt.Errorf("%s: somebody holds it: postsuper -H %s", m.ID, m.ID))
		case len(w.Recipients) == 0:
			bad = append(bad, fmt.Errorf("%s: no recipients", m.ID))
		case strings.Trim(m.ID, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") != "":
			bad = append(bad, fmt.Errorf("%q: not a queue ID", m.ID))
		default:
			w.take = func(store func(io.Reader) error) error { return p.take(m.ID, store) }
			list = append(list, w)
		}
	}
	return list, bad, lines.Err()
}

// postfixPrograms are Postfix's, for the configuration in a directory, empty for the
// usual one.
type postfixPrograms struct{ dir string }

func (p postfixPrograms) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if p.dir != "" {
		args = append([]string{"-c", p.dir}, args...)
	}
	for _, dir := range []string{"/usr/sbin/", "/usr/local/sbin/", "/sbin/", "/usr/bin/"} {
		if path, err := exec.LookPath(dir + name); err == nil {
			return exec.CommandContext(ctx, path, args...)
		}
	}
	return exec.CommandContext(ctx, name, args...)
}

func (p postfixPrograms) output(name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	cmd := p.command(ctx, name, args...)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", name, err, strings.TrimSpace(said.String()))
	}
	return out, err
}

// take gives a message to store and has Postfix delete it.
func (p postfixPrograms) take(id string, store func(io.Reader) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandWait)
	defer cancel()
	cmd := p.command(ctx, "postcat", "-bh", "-q", id)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	content := &outputOf{cmd: cmd, r: out}
	if err = store(content); err != nil {
		cancel()
		content.wait()
		return err
	}
	_, err = p.output("postsuper", "-d", id)
	return err
}

// outputOf reads what a program prints. It ends well only if the program does: half a
// message is none.
type outputOf struct {
	cmd  *exec.Cmd
	r    io.Reader
	done bool
	err  error
}

func (o *outputOf) Read(b []byte) (int, error) {
	if o.done {
		return 0, o.err
	}
	n, err := o.r.Read(b)
	if err != nil {
		o.wait()
		err = o.err
	}
	return n, err
}

// wait waits for the program's end and keeps what to say of it.
func (o *outputOf) wait() {
	if o.done {
		return
	}
	o.done, o.err = true, io.EOF
	if err := o.cmd.Wait(); err != nil {
		o.err = fmt.Errorf("%s: %w", o.cmd.Path, err)
	}
}
