package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
)

// runCompletion is the completion command: what a shell has to know of the commands
// and their flags, made from the table that runs them.
func runCompletion(_ context.Context, a *app, _ options, operands []string) error {
	shells := map[string]func(io.Writer) error{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}
	if len(operands) != 1 || shells[operands[0]] == nil {
		return usageError("completion wants bash, zsh or fish")
	}
	return a.output(shells[operands[0]])
}

// choice is a word that may come next, and what it is about.
type choice struct{ word, about string }

// state is what may follow some words; of these the first state that fits counts.
type state struct {
	after   string // "config check" or, for the first word, ""
	choices []choice
}

// states are those of the command line: commands of two words before their first words
// alone, and the beginning last.
func states() []state {
	var whole, groups []state
	first := state{}
	for _, c := range commands() {
		word, second, two := strings.Cut(c.name, " ")
		if !two {
			first.choices = append(first.choices, choice{word, c.about})
		} else if n := slices.IndexFunc(groups, func(g state) bool { return g.after == word }); n >= 0 {
			groups[n].choices = append(groups[n].choices, choice{second, c.about})
		} else {
			groups = append(groups, state{word, []choice{{second, c.about}}})
			first.choices = append(first.choices, choice{word, c.about})
		}
		whole = append(whole, state{c.name, c.choices()})
	}
	// A word may be a command and begin others as well; then its flags count.
	whole = append(whole, groups...)
	return append(whole, first)
}

// choices are the flags of a command.
func (c *command) choices() []choice {
	var list []choice
	new(app).flagSet(c.name, new(options), c.flags).VisitAll(func(f *flag.Flag) {
		_, about := flag.UnquoteUsage(f)
		list = append(list, choice{"--" + f.Name, about})
	})
	return list
}

// quoteShell quotes text for all three shells.
func quoteShell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func bashCompletion(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# bash completion for postino, by \"postino completion bash\"\n_postino() {\n\tlocal words=\n" +
		"\tcase \"${COMP_WORDS[*]:1:COMP_CWORD-1} \" in\n")
	for _, s := range states() {
		words := make([]string, len(s.choices))
		for n, c := range s.choices {
			words[n] = c.word
		}
		fmt.Fprintf(&b, "\t%s) words='%s' ;;\n", pattern(s), strings.Join(words, " "))
	}
	b.WriteString("\tesac\n\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"${COMP_WORDS[COMP_CWORD]}\")\n}\n" +
		"complete -o default -F _postino postino\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// pattern is what the words before the one to complete look like in a state.
func pattern(s state) string {
	if s.after == "" {
		return "' '"
	}
	return "'" + s.after + " '*"
}

func zshCompletion(w io.Writer) error {
	var b strings.Builder
	b.WriteString("#compdef postino\n# zsh completion for postino, by \"postino completion zsh\"\nlocal -a list\n" +
		"case \"${(j: :)words[2,CURRENT-1]} \" in\n")
	for _, s := range states() {
		fmt.Fprintf(&b, "%s) list=(\n", pattern(s))
		for _, c := range s.choices {
			fmt.Fprintf(&b, "\t%s\n", quoteShell(strings.ReplaceAll(c.word, ":", `\:`)+":"+c.about))
		}
		b.WriteString(") ;;\n")
	}
	b.WriteString("esac\n_describe -o 'postino' list || _files\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func fishCompletion(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# fish completion for postino, by \"postino completion fish\"\n" +
		"function __postino_words\n\tset -l line (commandline -opc)\n\techo \"$line[2..] \"\nend\n" +
		"function __postino_at\n\ttest (__postino_words) = \"$argv[1] \"\nend\n" +
		"function __postino_after\n\tstring match -q -- \"$argv[1] *\" (__postino_words)\nend\n")
	for _, s := range states() {
		for _, c := range s.choices {
			where, word := "-f -n '__postino_at \""+s.after+"\"'", "-a "+c.word
			if name, isFlag := strings.CutPrefix(c.word, "--"); isFlag {
				where, word = "-n '__postino_after \""+s.after+"\"'", "-l "+name
			}
			fmt.Fprintf(&b, "complete -c postino %s %s -d %s\n", where, word, quoteShell(c.about))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
