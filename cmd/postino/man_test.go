package main

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
)

// sections are those that each page about commands has, in this order.
var sections = []string{"NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "SEE ALSO"}

// filterPage is the page that has the filters; other pages refer to it.
const filterPage = "postino-queue"

// common reports whether all commands have the flag, which postino(8) has.
func common(name string) bool { return name == "config" || name == "spool" || name == "user" }

// filters are the flags that say together which messages are meant.
func filters() *flag.FlagSet {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	flagsSelection(fs, new(options))
	flagLimit(fs, new(options))
	return fs
}

// takesFilters reports whether a command has them.
func takesFilters(fs *flag.FlagSet) bool {
	return fs.Lookup("reason") != nil && fs.Lookup("hop") != nil
}

// synopsis is what the parser takes, in lines of mdoc(7).
func (c *command) synopsis() []string {
	lines := []string{".Nm postino Cm " + c.name}
	fs := new(app).flagSet(c.name, new(options), c.flags)
	fs.VisitAll(func(f *flag.Flag) {
		filter := takesFilters(fs) && filters().Lookup(f.Name) != nil
		if !common(f.Name) && !filter && !strings.Contains(c.operands, "--"+f.Name) {
			lines = append(lines, ".Op "+described(f))
		}
	})
	if takesFilters(fs) && !strings.Contains(c.operands, "FILTER") {
		lines = append(lines, ".Op Ar filter ...")
	}
	words := []string{"."}
	for _, word := range strings.Fields(c.operands) {
		words = append(words, operand(word))
	}
	if len(words) > 1 {
		lines = append(lines, "."+strings.Join(words[1:], " "))
	}
	return lines
}

// operand is a word of a command's operands in mdoc(7).
func operand(word string) string {
	name, optional := strings.CutPrefix(word, "[")
	name = strings.TrimSuffix(name, "]")
	switch {
	case name == "..." || name == "|":
	case strings.HasPrefix(name, "--"):
		name = "Fl -" + strings.TrimPrefix(name, "--")
	case name == strings.ToLower(name):
		name = "Cm " + name
	case name == "ID":
		name = "Ar ID"
	default:
		name = "Ar " + strings.ToLower(name)
	}
	if optional {
		name = "Oo " + name
	}
	if strings.HasSuffix(word, "]") {
		name += " Oc"
	}
	return name
}

// described is a flag and its value in mdoc(7).
func described(f *flag.Flag) string {
	name, _ := flag.UnquoteUsage(f)
	dash := "-"
	if len(f.Name) == 1 {
		dash = ""
	}
	if name == "" {
		return "Fl " + dash + f.Name
	}
	return "Fl " + dash + f.Name + " Ar " + strings.ToLower(name)
}

// options are the flags that the page of the family has to explain.
func (f *family) options() []string {
	var list []string
	add := func(fl *flag.Flag) { list = append(list, described(fl)) }
	for _, c := range f.commands {
		fs := new(app).flagSet(c.name, new(options), c.flags)
		fs.VisitAll(func(fl *flag.Flag) {
			elsewhere := takesFilters(fs) && filters().Lookup(fl.Name) != nil && f.page != filterPage
			if common(fl.Name) == (f.page == "postino") && !elsewhere || fl.Name == "json" {
				add(fl)
			}
		})
	}
	if f.page == "postino" {
		list = append(list, "Fl -help")
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// names are those of the family's commands, as mdoc(7) lists them.
func (f *family) names() string {
	var list []string
	for _, c := range f.commands {
		list = append(list, c.name)
	}
	return ".Cm " + strings.Join(list, " , ")
}

// page is a page of the manual.
type page struct{ lines []string }

// readPage reads a page of section 8.
func readPage(t *testing.T, name string) *page {
	t.Helper()
	text, err := os.ReadFile("../../man/" + name + ".8")
	if err != nil {
		t.Fatal(err)
	}
	return &page{strings.Split(string(text), "\n")}
}

// section finds the lines of a section, without its heading: [from, to).
func (p *page) section(name string) (from, to int) {
	from = slices.Index(p.lines, ".Sh "+name) + 1
	if from == 0 {
		return 0, 0
	}
	for to = from; to < len(p.lines) && !strings.HasPrefix(p.lines[to], ".Sh "); to++ {
	}
	return from, to
}

// items are what a section's lists are about: the parts of the lines with .It.
func (p *page) items(section string) []string {
	from, to := p.section(section)
	var list []string
	for _, line := range p.lines[from:to] {
		if item, found := strings.CutPrefix(line, ".It "); found {
			list = append(list, strings.Split(item, " , ")...)
		}
	}
	slices.Sort(list)
	return list
}

// replace puts other lines in the place of [from, to), if they are others: with -update
// in the page, without it that is an error.
func (p *page) replace(t *testing.T, from, to int, lines []string) {
	t.Helper()
	if slices.Equal(p.lines[from:to], lines) {
		return
	}
	if !*update {
		t.Errorf("line %d: want\n%s\nnot\n%s", from+1, strings.Join(lines, "\n"), strings.Join(p.lines[from:to], "\n"))
	}
	p.lines = slices.Replace(p.lines, from, to, lines...)
}

// Each family of commands has a page, with the flags and operands that the parser takes
// and the help prints, each explained, and none that does not exist. With -update its
// synopsis is made so; what a new command or flag does has to be written by a person.
func TestManualHasEveryCommand(t *testing.T) {
	for _, f := range families() {
		t.Run(f.page, func(t *testing.T) {
			p := readPage(t, f.page)
			end := 0
			for _, name := range sections {
				from, to := p.section(name)
				if from <= end || from == to && !*update {
					t.Fatalf("no section %s in its place, or nothing in it", name)
				}
				end = to
			}
			var lines []string
			if f.page == "postino" {
				lines = []string{".Nm postino", ".Op Fl -config Ar file", ".Op Fl -spool Ar dir", ".Op Fl -user", ".Ar command", ".Op Ar ..."}
			}
			for _, c := range f.commands {
				lines = append(lines, c.synopsis()...)
				if !slices.Contains(p.items("DESCRIPTION"), "Cm "+c.name) && len(f.commands) > 1 {
					t.Errorf("%s is not described: write what it does", c.name)
				}
			}
			from, to := p.section("SYNOPSIS")
			p.replace(t, from, to, lines)
			got, want := p.items("OPTIONS"), f.options()
			if got = slices.Compact(got); !slices.Equal(got, want) {
				t.Errorf("options\n%q, want\n%q", got, want)
			}
			if text := strings.Join(p.lines, "\n"); strings.Contains(text, "Ar filter") && f.page != filterPage && !strings.Contains(text, ".Xr "+filterPage+" 8") {
				t.Errorf("no word of %s(8), which has the filters", filterPage)
			}
			p.write(t, f.page)
		})
	}
}

// The example that the help of a command gives is one of that command, with flags that
// it has.
func TestExampleInTheHelpParses(t *testing.T) {
	p := newPlace(t)
	for _, c := range commands() {
		r := p.run(t, 0, append(strings.Fields(c.example), "--help")...)
		if r.status != 0 || !strings.HasPrefix(r.stdout, "usage: postino "+c.name+" ") || !strings.Contains(r.stdout, "  "+c.example+"\n") {
			t.Errorf("%s: %+v", c.example, r)
		}
	}
}

// write writes a page whose lines were replaced.
func (p *page) write(t *testing.T, name string) {
	t.Helper()
	if !*update {
		return
	}
	if err := os.WriteFile("../../man/"+name+".8", []byte(strings.Join(p.lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The page about everything names each other page and its commands.
func TestManualHasEveryFamily(t *testing.T) {
	p := readPage(t, "postino")
	for _, f := range families() {
		n := slices.Index(p.lines, ".It Xr "+f.page+" 8")
		switch {
		case f.page == "postino":
		case n < 0:
			t.Errorf("%s(8) is not named: write what it is about", f.page)
		default:
			p.replace(t, n+1, n+2, []string{f.names() + " :"})
		}
	}
	p.write(t, "postino")
}
