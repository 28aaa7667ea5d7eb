package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"postino/config"
	"postino/delivery"
	"postino/delivery/aliases"
	"postino/delivery/control"
	"postino/spool"
	"postino/spool/address"
)

// runAliasesCheck is the aliases check command, and newaliases: it reads the file
// that the configuration names, or the one given, and says what is wrong with it.
// There is nothing to build.
func runAliasesCheck(_ context.Context, a *app, _ options, operands []string) error {
	if len(operands) > 1 {
		return usageError("aliases check takes one file at most")
	}
	path := config.Default().Aliases.File
	if len(operands) == 1 {
		path = operands[0]
	} else if c, err := config.Load(a.config, a.environ...); err == nil {
		// One that cannot be read, or is wrong, is not what was asked about.
		path = c.Aliases.File
	}
	if _, err := aliases.Load(path); err != nil {
		return &exitError{status: exConfig, err: err}
	}
	return nil
}

// runAliasesExpand is the aliases expand command: it follows names through the aliases
// file as the runner does, and tells the way.
func runAliasesExpand(_ context.Context, a *app, o options, operands []string) error {
	if len(operands) == 0 {
		return usageError("aliases expand needs a name or an address")
	}
	c, err := a.loadConfig()
	if err != nil {
		return &exitError{status: exConfig, err: err}
	}
	table, err := aliases.Open(c.Aliases.File)
	if err != nil {
		return &exitError{status: exConfig, err: err}
	}
	return a.output(func(w io.Writer) error {
		var failed failures
		for _, operand := range operands {
			if err := expandAlias(w, c, table, operand, o.json); err != nil {
				failed.add(err)
			}
		}
		return failed.err()
	})
}

// expansion is a target, and what it stands for, as --json tells it.
type expansion struct {
	Name string `json:"name"`
	// Kind is "address", "mailbox", "alias", "program", "file" or "include".
	Kind  string      `json:"kind"`
	Line  int         `json:"line,omitempty"` // of the alias in the file
	Owner string      `json:"owner,omitempty"`
	Again bool        `json:"again,omitempty"`
	Below []expansion `json:"below,omitempty"`
}

func expandAlias(w io.Writer, c *config.Config, table *aliases.Table, operand string, asJSON bool) error {
	to, err := address.Parse(operand)
	if err != nil {
		return &exitError{status: exNoUser, err: fmt.Errorf("%q: %w", operand, err)}
	}
	here := to.Domain == "" || strings.EqualFold(to.Domain, "localhost") || delivery.Machine(c).IsLocal(to)
	x := expansion{Name: to.String(), Kind: "address"}
	if here {
		var root *aliases.Node
		if root, err = table.Tree(to.Local, delivery.Machine(c), nil); root == nil && err == nil {
			x.Kind = "mailbox"
		} else if root != nil {
			root.Address = to
			x = newExpansion(root)
		}
	}
	if asJSON {
		line, lineErr := control.Line(x)
		if lineErr == nil {
			_, lineErr = w.Write(line)
		}
		if lineErr != nil {
			return lineErr
		}
	} else if printErr := printExpansion(w, x, ""); printErr != nil {
		return printErr
	}
	if err != nil {
		return &exitError{status: exConfig, err: err}
	}
	return nil
}

func newExpansion(n *aliases.Node) expansion {
	x := expansion{Name: n.Address.String(), Kind: "address", Line: n.Line, Owner: n.Owner, Again: n.Again}
	switch {
	case n.Kind == aliases.Program:
		x.Name, x.Kind = "|"+n.Text, "program"
	case n.Kind == aliases.File:
		x.Name, x.Kind = n.Text, "file"
	case n.Kind == aliases.Include:
		x.Name, x.Kind = n.Text, "include"
	case len(n.Below) > 0:
		x.Kind = "alias"
	case n.Final:
		x.Kind = "mailbox"
	}
	for _, below := range n.Below {
		x.Below = append(x.Below, newExpansion(below))
	}
	return x
}

// printExpansion prints a target on a line, and below it, further to the right, what it
// stands for.
func printExpansion(w io.Writer, x expansion, indent string) error {
	note := ""
	switch {
	case x.Kind == "mailbox":
		note = "  (mailbox)"
	case x.Kind == "include":
		note = "  (:include:)"
	case x.Kind == "alias" && x.Line > 0:
		note = fmt.Sprintf("  (line %d)", x.Line)
	case x.Kind == "alias":
		note = "  (the user's own file)"
	}
	if x.Again {
		note += "  (again)"
	}
	if x.Owner != "" && x.Kind == "alias" {
		note += "  (reports to " + x.Owner + ")"
	}
	if _, err := io.WriteString(w, indent+spool.CleanText(x.Name+note)+"\n"); err != nil {
		return err
	}
	for _, below := range x.Below {
		if err := printExpansion(w, below, indent+"    "); err != nil {
			return err
		}
	}
	return nil
}
