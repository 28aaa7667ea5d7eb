package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"postino/config"
	"postino/delivery/dns"
	"postino/spool"
)

// examWait bounds each check. A person waits, and they run at the same time.
const examWait = 45 * time.Second

// finding is what one check found.
type finding struct {
	Check  string `json:"check"`
	Status string `json:"status"` // one of those below
	Found  string `json:"found"`
	Remedy string `json:"remedy,omitempty"`
}

const (
	well    = "ok"
	warning = "warn"
	failing = "fail"
	skipped = "skip"
)

// doctor is one examination.
type doctor struct {
	app    *app
	config *config.Config
	dns    *dns.Resolver
	domain string // that mail is from
	own    bool   // the spool is that of whoever called us, who is not root
}

// exam is a check; it may find several things.
type exam func(context.Context) []finding

// runDoctor is the doctor command: it looks at all that has to be right for mail to
// go out, and sends none.
func runDoctor(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("doctor takes no operands")
	}
	d := &doctor{app: a}
	found := append(d.programs(), callers(os.DirFS("/"))...)
	d.own = os.Geteuid() != 0 && d.owner()
	// From here on as the runner's user: what that cannot read counts.
	if err := becomeOwner(a.spool); err != nil {
		found = append(found, finding{"spool.dir", failing, err.Error(), "install postino, or make the directory and give it to the runner's user"})
	}
	c, err := a.loadConfig()
	if err != nil {
		found = append(found, finding{"conf.file", failing, err.Error(), "mend it; the runner goes on with what it has read before"})
	} else {
		d.config, d.domain = c, senderDomain(c)
		found = append(found, d.examine(ctx)...)
	}
	return a.output(func(w io.Writer) error { return tellFindings(w, found, o.json) })
}

// senderDomain is the domain that mail is from when its From is completed or replaced.
func senderDomain(c *config.Config) string {
	if c.From.Envelope == config.Force || c.From.Header == config.Force {
		if _, domain, ok := strings.Cut(c.From.Address, "@"); ok && !strings.ContainsAny(domain, "{}") {
			return domain
		}
	}
	return c.Domain
}

// examine runs all checks at the same time, and tells them in their order.
func (d *doctor) examine(ctx context.Context) []finding {
	var err error
	d.dns, err = dns.System()
	if d.config.MX.Resolver != "" {
		d.dns, err = dns.New(d.config.MX.Resolver)
	}
	if err != nil {
		return []finding{{"dns.resolver", failing, err.Error(), "mend /etc/resolv.conf or mx.resolver"}}
	}
	exams := []exam{d.file, d.secrets, d.clock, d.spoolDir, d.runner}
	exams = append(exams, d.relays()...)
	exams = append(exams, d.exchangers, d.hostname, d.mx, d.senders)
	results := make([][]finding, len(exams))
	var all sync.WaitGroup
	for i, e := range exams {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, examWait)
			defer cancel()
			results[i] = e(ctx)
		})
	}
	all.Wait()
	var found []finding
	for _, r := range results {
		found = append(found, r...)
	}
	return found
}

// tellFindings prints what was found. It is an error if anything has to be mended.
func tellFindings(w io.Writer, found []finding, asJSON bool) error {
	bad := 0
	for _, f := range found {
		if f.Status == failing {
			bad++
		}
		if asJSON {
			if err := writeLine(w, f); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(w, "%-4s  %-14s  %s\n", f.Status, f.Check, spool.CleanText(f.Found))
		if f.Remedy != "" {
			fmt.Fprintf(w, "%22s%s\n", "-> ", spool.CleanText(f.Remedy))
		}
	}
	switch {
	case bad == 1:
		return &exitError{status: exFailure, err: errors.New("1 check failed")}
	case bad > 1:
		return &exitError{status: exFailure, err: fmt.Errorf("%d checks failed", bad)}
	}
	return nil
}
