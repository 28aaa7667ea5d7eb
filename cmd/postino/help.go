package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
)

// runHelp is the help command. It explains a command, or lists the family of those whose
// names begin with a word.
func runHelp(_ context.Context, a *app, _ options, operands []string) error {
	if len(operands) == 0 {
		return a.output(overview)
	}
	c, rest, err := findCommand(operands)
	if f := familyOf(operands[0]); err != nil && f != nil && len(operands) == 1 {
		return a.output(f.help)
	}
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usageError("help explains one command at a time")
	}
	return a.output(c.help)
}

// familyOf is the family with a command of that name or first word; nil is none.
func familyOf(name string) *family {
	for _, f := range families() {
		if slices.ContainsFunc(f.commands, func(c command) bool { return strings.HasPrefix(c.name+" ", name+" ") }) {
			return &f
		}
	}
	return nil
}

// help explains one command.
func (c *command) help(w io.Writer) error {
	var b strings.Builder
	c.usage(&b)
	fmt.Fprintf(&b, "\nFor example:\n  %s\n\nSee %s(8).\n", c.example, familyOf(c.name).page)
	_, err := io.WriteString(w, b.String())
	return err
}

func upperFirst(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// help lists the commands of a family.
func (f *family) help(w io.Writer) error {
	var b strings.Builder
	b.WriteString("usage: postino COMMAND [FLAG ...] ...\n\n")
	f.list(&b)
	fmt.Fprintf(&b, "\n\"postino help COMMAND\" explains one. For example:\n  %s\n\nSee %s(8).\n", f.commands[0].example, f.page)
	_, err := io.WriteString(w, b.String())
	return err
}

// list writes a line for each command, or two where it has long operands.
func (f *family) list(b *strings.Builder) {
	const width = 20
	for _, c := range f.commands {
		call := strings.TrimSpace(c.name + " " + c.operands)
		if len(call) > width {
			call += "\n" + strings.Repeat(" ", 2+width)
		}
		fmt.Fprintf(b, "  %-*s %s\n", width, call, c.about)
	}
}

// overview prints all commands, by the page that explains them.
func overview(w io.Writer) error {
	var b strings.Builder
	b.WriteString("usage: postino COMMAND [--config FILE] [--spool DIR] [--user] ...\n")
	for _, f := range families() {
		fmt.Fprintf(&b, "\n%s, %s(8):\n", upperFirst(f.about), f.page)
		f.list(&b)
	}
	b.WriteString("\n\"postino help COMMAND\" explains one. For example:\n  postino trace bob@example.org\n\nSee postino(8).\n")
	_, err := io.WriteString(w, b.String())
	return err
}
