package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"

	"postino/delivery/control"
)

// command is one entry of the dispatch table.
type command struct {
	name     string // one word or two
	operands string
	about    string
	example  string
	flags    []string // besides --config and --spool
	run      func(ctx context.Context, a *app, o options, operands []string) error
}

// commands is the dispatch table, in the order of the manual.
func commands() []command {
	ids := "ID ... | --all"
	return []command{
		{"run", "", "keep the spool and deliver what is in it", "postino run", []string{"until-empty"},
			func(ctx context.Context, a *app, o options, operands []string) error {
				if len(operands) > 0 {
					return usageError("run takes no operands")
				}
				return runRunner(ctx, a, o.untilEmpty)
			}},
		{"queue", "", "list what is not delivered yet", "postino queue --json", []string{"json"}, runQueue},
		{"show", "ID", "show one message: envelope, attempts, recipients", "postino show 06423B2F1C0A5E77", []string{"json", "content"}, runShow},
		{"trace", "WHAT", "find messages by queue ID, Message-ID, address or part of the subject, and tell their whole life",
			"postino trace bob@example.org", []string{"json"}, runTrace},
		{"hold", ids, "attempt nothing until release", "postino hold 06423B2F1C0A5E77", []string{"all", "json"},
			runVerb(verb{name: "hold", past: "held", do: (*control.Client).Hold, concerns: isQueued})},
		{"release", ids, "let held messages go, at once", "postino release --all", []string{"all", "json"},
			runVerb(verb{name: "release", past: "released", do: (*control.Client).Release, concerns: isHeld})},
		{"retry", ids, "attempt messages at once", "postino retry --all", []string{"all", "json"},
			runVerb(verb{name: "retry", past: "due now", do: (*control.Client).Retry, all: (*control.Client).RetryAll})},
		{"delete", ids, "give messages up", "postino delete 06423B2F1C0A5E77", []string{"all", "json"},
			runVerb(verb{name: "delete", past: "deleted", do: (*control.Client).Delete, concerns: func(*control.Message) bool { return true }})},
		{"capture list", "", "list the mail kept by mode capture", "postino capture list", []string{"json"}, runCaptureList},
		{"capture show", "ID", "print a message as it would have been sent", "postino capture show 06423B2F1C0A5E77", nil, runCaptureShow},
		{"route", "ADDRESS ...", "say where mail for an address would go", "postino route bob@example.org", []string{"json"}, runRoute},
		{"aliases check", "[FILE]", "say what is wrong with the aliases file", "postino aliases check", nil, runAliasesCheck},
		{"config check", "[FILE]", "say what is wrong with the configuration", "postino config check", nil, runConfigCheck},
		{"config show", "", "print the configuration, defaults included", "postino config show", nil, runConfigShow},
		{"mailq", "", "print the queue as mailq(1) does", "postino mailq", nil, runQueue},
		{"version", "", "print the version", "postino version", []string{"json"}, runVersion},
		{"help", "[COMMAND]", "explain a command", "postino help trace", nil, runHelp},
	}
}

func isQueued(m *control.Message) bool { return m.Status == control.StatusQueued }
func isHeld(m *control.Message) bool   { return m.Status == control.StatusHeld }

// findCommand finds the command whose name args begin with.
func findCommand(args []string) (*command, []string, error) {
	group := false
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if args[0] != words[0] {
			continue
		}
		if len(words) == 1 {
			return &c, args[1:], nil
		}
		if len(args) > 1 && args[1] == words[1] {
			return &c, args[2:], nil
		}
		group = true
	}
	if group && len(args) > 1 && (args[1] == "--help" || args[1] == "-h") {
		return nil, nil, flag.ErrHelp
	}
	if group {
		return nil, nil, usageError(`%q is not complete: "postino help" lists the commands`, strings.Join(args[:min(2, len(args))], " "))
	}
	return nil, nil, usageError(`%q is not a command: "postino help" lists them`, args[0])
}

// runHelp is the help command.
func runHelp(_ context.Context, a *app, _ options, operands []string) error {
	if len(operands) == 0 {
		return a.output(overview)
	}
	c, rest, err := findCommand(operands)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usageError("help explains one command at a time")
	}
	return a.output(c.help)
}

// help prints the usage of one command.
func (c *command) help(w io.Writer) error {
	_, err := fmt.Fprintf(w, "usage: postino %s\n\n%s.\n\nFor example:\n  %s\n\nSee postino(8).\n",
		c.usage(), upperFirst(c.about), c.example)
	return err
}

func (c *command) usage() string {
	words := []string{c.name}
	for _, f := range c.flags {
		if f != "all" { // stands among the operands
			words = append(words, "[--"+f+"]")
		}
	}
	words = append(words, "[--config FILE]", "[--spool DIR]")
	if c.operands != "" {
		words = append(words, c.operands)
	}
	return strings.Join(words, " ")
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// overview prints all commands.
func overview(w io.Writer) error {
	var b strings.Builder
	b.WriteString("usage: postino COMMAND [--config FILE] [--spool DIR] ...\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-28s %s\n", strings.TrimSpace(c.name+" "+c.operands), c.about)
	}
	b.WriteString("\n\"postino help COMMAND\" explains one. For example:\n  postino trace bob@example.org\n\nSee postino(8).\n")
	_, err := io.WriteString(w, b.String())
	return err
}
