package main

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

// commandPage is the page that has all commands; some have one of their own beside it.
const commandPage = "../../man/postino.8"

// heading is the line of mdoc(7) that a command is described under, made of what the
// parser and the help know: name, flags and operands.
func (c *command) heading() string {
	words := []string{".It Cm", c.name}
	fs := new(app).flagSet(c.name, new(options), c.flags)
	filters := fs.Lookup("reason") != nil && fs.Lookup("hop") != nil
	shown := filters && !strings.Contains(c.operands, "FILTER")
	selection := flag.NewFlagSet("", flag.ContinueOnError)
	flagsSelection(selection, new(options))
	flagLimit(selection, new(options))
	fs.VisitAll(func(f *flag.Flag) {
		common := f.Name == "config" || f.Name == "spool" || f.Name == "user"
		if common || filters && selection.Lookup(f.Name) != nil || strings.Contains(c.operands, "--"+f.Name) {
			return
		}
		words = append(words, "Oo Fl", strings.TrimSpace(dash(f.Name)+" "+value(f)), "Oc")
	})
	if shown {
		words = append(words, "Oo Ar filter ... Oc")
	}
	for _, word := range strings.Fields(c.operands) {
		name, optional := strings.CutPrefix(word, "[")
		name = strings.TrimSuffix(name, "]")
		switch {
		case strings.HasPrefix(name, "--"):
			name = "Fl -" + strings.TrimPrefix(name, "--")
		case name == strings.ToLower(name) && name != "..." && name != "|":
			name = "Cm " + name
		case name != "..." && name != "|":
			name = "Ar " + operand(name)
		}
		if optional {
			name = "Oo " + name
		}
		if strings.HasSuffix(word, "]") {
			name += " Oc"
		}
		words = append(words, name)
	}
	return strings.Join(words, " ")
}

// dash is a flag behind the first dash.
func dash(name string) string {
	if len(name) == 1 {
		return name
	}
	return "-" + name
}

// operand is what the manual calls one.
func operand(name string) string {
	if name == "ID" {
		return name
	}
	return strings.ToLower(name)
}

// value is what a flag's value is called in the manual.
func value(f *flag.Flag) string {
	name, _ := flag.UnquoteUsage(f)
	if name == "" {
		return ""
	}
	return "Ar " + strings.ToLower(name)
}

// The manual has each command once, under the flags and operands that the parser takes
// and the help prints, and none that does not exist. With -update it is made so; what a
// new command does has to be written by a person.
func TestManualHasEveryCommand(t *testing.T) {
	text, err := os.ReadFile(commandPage)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	described := make(map[string]bool)
	for i, line := range lines {
		if !strings.HasPrefix(line, ".It Cm ") {
			continue
		}
		c := commandOf(line)
		switch {
		case c == nil:
			t.Errorf("line %d: there is no such command: %s", i+1, line)
			continue
		case described[c.name]:
			t.Errorf("line %d: %s is described twice", i+1, c.name)
		case line != c.heading() && !*update:
			t.Errorf("line %d: %s\nwant %s", i+1, line, c.heading())
		}
		described[c.name] = true
		lines[i] = c.heading()
	}
	if *update {
		err = os.WriteFile(commandPage, []byte(strings.Join(lines, "\n")), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands() {
		if !described[c.name] {
			t.Errorf("%s is not described: write what it does under\n%s", c.name, c.heading())
		}
	}
}

// commandOf is the command that a heading is about: the one with the longest name.
func commandOf(heading string) *command {
	words := strings.Fields(strings.TrimPrefix(heading, ".It Cm "))
	for n := min(2, len(words)); n > 0; n-- {
		i := slices.IndexFunc(commands(), func(c command) bool { return c.name == strings.Join(words[:n], " ") })
		if i >= 0 {
			return &commands()[i]
		}
	}
	return nil
}
