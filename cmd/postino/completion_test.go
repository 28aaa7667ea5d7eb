package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"postino/spool/standstill"
)

// askBash, askZsh and askFish print what may come next after the words in $1, each a
// line: first a line with those words, then the answer. They ask for a command first,
// then for a flag.
const (
	askBash = `. "$1"; shift
for line; do
	echo "== $line"
	for begun in '' -; do
		COMP_WORDS=(postino $line "$begun") COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		_postino
		printf '%s\n' "${COMPREPLY[@]}"
	done
done`
	askZsh = `file=$1; shift
_describe() { print -l -- ${list%%:*} }
for line; do
	echo "== $line"
	words=(postino ${=line} '') CURRENT=$#words
	. $file
done`
	askFish = `source $argv[1]
for line in $argv[2..]
	echo "== $line"
	set -l words (string split -n ' ' -- $line)
	for begun in '' --
		complete -C (string join ' ' -- postino $words $begun) | string replace -r '\t.*' ''
	end
end
true`
)

// Each shell offers, after each command and each first word of commands, the words and
// flags that the table of commands has, and no others.
func TestShellsCompleteWhatTheTableHas(t *testing.T) {
	for shell, ask := range map[string][]string{
		"bash": {"--norc", "-c", askBash, "bash"},
		"zsh":  {"-f", "-c", askZsh, "zsh"},
		"fish": {"--no-config", "-c", askFish},
	} {
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			path, err := exec.LookPath(shell)
			if err != nil {
				if os.Getenv("CI") == "true" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			file := filepath.Join(t.TempDir(), "completion")
			if err := os.WriteFile(file, []byte(completion(t, shell)), 0o644); err != nil {
				t.Fatal(err)
			}
			args := append(ask, file)
			for _, s := range states() {
				args = append(args, s.after)
			}
			cmd := standstill.Command(t, patience, path, args...)
			cmd.Dir, cmd.Stderr = t.TempDir(), os.Stderr // where no file is offered
			cmd.Env = append(os.Environ(), "HOME="+cmd.Dir)
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			for n, block := range strings.Split("\n"+string(out), "\n== ")[1:] {
				got := strings.Fields(block)[len(strings.Fields(states()[n].after)):]
				var want []string
				for _, c := range states()[n].choices {
					want = append(want, c.word)
				}
				slices.Sort(got)
				slices.Sort(want)
				if got = slices.Compact(got); !slices.Equal(got, want) {
					t.Errorf("after %q: %q, want %q", states()[n].after, got, want)
				}
			}
		})
	}
}

// completion is the output of the completion command.
func completion(t *testing.T, shell string) string {
	t.Helper()
	var out strings.Builder
	a := &app{stdout: &out}
	if err := runCompletion(t.Context(), a, options{}, []string{shell}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
