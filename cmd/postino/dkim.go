package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"postino/delivery/control"
	"postino/delivery/dkim"
)

// runDKIMKeygen is the dkim keygen command.
func runDKIMKeygen(_ context.Context, a *app, o options, operands []string) error {
	if len(operands) != 3 {
		return usageError(`dkim keygen takes a domain, a selector and a file: "postino dkim keygen example.com s1 /etc/postino/dkim/s1.pem"`)
	}
	domain, selector, file := operands[0], operands[1], operands[2]
	if !filepath.IsAbs(file) {
		return usageError("%q: want an absolute path, as the configuration does", file)
	}
	key, pem, err := dkim.Generate(domain, selector, o.kind)
	if err != nil {
		return usageError("--type: %v", err)
	}
	if err := a.writeKey(file, pem); err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		if err := writeRecord(w, key, o.json); err != nil || o.json {
			return err
		}
		_, err := fmt.Fprintf(w, "\nWhen that can be looked up, add to %s and reload:\n\n[[dkim]]\ndomain = %q\nselector = %q\nkey_file = %q\n", a.config, domain, selector, file)
		return err
	})
}

// writeKey writes a file that only the runner's user can read, which is the owner of
// the spool directory. It overwrites nothing: mail may be on its way that was signed
// with what is there.
func (a *app) writeKey(path string, pem []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return &exitError{status: exCantCreate, err: err}
	}
	_, err = f.Write(pem)
	var st unix.Stat_t
	if err == nil && os.Geteuid() == 0 && unix.Stat(a.spool, &st) == nil {
		err = f.Chown(int(st.Uid), int(st.Gid))
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		_ = os.Remove(path) // half a key is none
		return &exitError{status: exIO, err: err}
	}
	return nil
}

// runDKIMRecord is the dkim record command.
func runDKIMRecord(_ context.Context, a *app, o options, operands []string) error {
	if len(operands) > 1 {
		return usageError("dkim record takes one domain at most")
	}
	c, err := a.loadConfig()
	if err != nil {
		return err
	}
	return a.output(func(w io.Writer) error {
		found := 0
		for _, k := range c.DKIM {
			if len(operands) == 1 && !strings.EqualFold(operands[0], k.Domain) {
				continue
			}
			key, err := dkim.Load(k.Domain, k.Selector, k.KeyFile)
			if err != nil {
				return &exitError{status: exConfig, err: err}
			}
			if found++; found > 1 && !o.json {
				fmt.Fprintln(w)
			}
			if err := writeRecord(w, key, o.json); err != nil {
				return err
			}
		}
		if found == 0 {
			return &exitError{status: exConfig, err: errors.New(`no key is configured for that: [[dkim]] names one, "postino dkim keygen" makes one`)}
		}
		return nil
	})
}

// maxTXT is how many octets one string of a TXT record holds (RFC 1035 §3.3).
const maxTXT = 255

// writeRecord prints a record as DNS panels want it, and as a zone file does.
func writeRecord(w io.Writer, key *dkim.Key, asJSON bool) error {
	record, err := key.Record()
	if err != nil {
		return err
	}
	if asJSON {
		line, err := control.Line(struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Value string `json:"value"`
		}{key.Name(), "TXT", record})
		if err == nil {
			_, err = w.Write(line)
		}
		return err
	}
	var zone strings.Builder
	for rest := record; rest != ""; {
		n := min(len(rest), maxTXT)
		fmt.Fprintf(&zone, " %q", rest[:n])
		rest = rest[n:]
	}
	_, err = fmt.Fprintf(w, "In a form for DNS records:\n  name   %s\n  type   TXT\n  value  %s\n\nIn a zone file:\n%s. IN TXT (%s )\n",
		key.Name(), record, key.Name(), zone.String())
	return err
}
