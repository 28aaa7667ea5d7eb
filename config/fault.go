package config

import (
	_ "embed" // faults.toml
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
)

//go:embed faults.toml
var faultFile string

// Fault is a kind of reply that is about us and not about the mail; see faults.toml
// for its fields.
type Fault struct {
	Presets []string `toml:"preset"`
	Command []string `toml:"command"`
	Code    []int    `toml:"code"`
	Status  []string `toml:"status"`
	Text    string   `toml:"text"`
	Kind    string   `toml:"kind"`
	// Remedy is what the operator can do.
	Remedy string `toml:"remedy"`

	text *regexp.Regexp // nil: any
}

// faults is the table, read once.
var faults = sync.OnceValue(func() []Fault {
	var file struct {
		Fault []Fault `toml:"fault"`
	}
	if _, err := toml.Decode(faultFile, &file); err != nil {
		panic(err) // it is a part of the program
	}
	for i := range file.Fault {
		f := &file.Fault[i]
		if f.Kind == "" {
			f.Kind = "relay"
		}
		if f.Text != "" {
			f.text = regexp.MustCompile("(?i)" + f.Text)
		}
	}
	return file.Fault
})

// Faults are those that a relay can have: those of its provider, which is known by
// Preset or by the names of its hosts, and those of any.
func (r *Relay) Faults() []Fault {
	var list []Fault
	for _, f := range faults() {
		if len(f.Presets) == 0 || slices.ContainsFunc(f.Presets, r.is) {
			list = append(list, f)
		}
	}
	return list
}

// is reports whether r is a relay of that provider.
func (r *Relay) is(preset string) bool {
	if r.Preset != "" {
		return string(r.Preset) == preset
	}
	name, _ := presets()[preset]["host"].(string)
	like, _ := presets()[preset]["host_like"].(string)
	return slices.ContainsFunc([]string(r.Host), func(host string) bool {
		host = strings.ToLower(strings.TrimSuffix(host, "."))
		return host == name || like != "" && regexp.MustCompile(like).MatchString(host)
	})
}

// Fits reports whether a reply to command is the fault. Code is 0 where no remote
// answered.
func (f *Fault) Fits(command string, code int, status, text string) bool {
	_, detail, _ := strings.Cut(status, ".")
	return (len(f.Command) == 0 || slices.Contains(f.Command, command)) &&
		(len(f.Code) == 0 || slices.Contains(f.Code, code)) &&
		(len(f.Status) == 0 || slices.ContainsFunc(f.Status, func(s string) bool { return s[2:] == detail })) &&
		(f.text == nil || f.text.MatchString(text))
}
