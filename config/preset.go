package config

import (
	_ "embed" // presets.toml
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

//go:embed presets.toml
var presetFile string

// Preset names a provider, whose settings hold where the file has none; empty is no
// provider.
type Preset string

// UnmarshalText refuses a provider that is not in the table.
func (p *Preset) UnmarshalText(b []byte) error {
	table := presets()
	if _, known := table[string(b)]; !known {
		return fmt.Errorf("%s is not a preset: write one of %s, or host", quote(string(b)),
			strings.Join(slices.Sorted(maps.Keys(table)), ", "))
	}
	*p = Preset(b)
	return nil
}

// hint is a text of the preset for people: "host_form" or "login".
func (p Preset) hint(name string) string {
	text, _ := presets()[string(p)][name].(string)
	return text
}

// SPF is the domain whose SPF record has the provider's addresses, for a domain to
// include; empty where none is known.
func (p Preset) SPF() string { return p.hint("spf") }

// presets is the table of providers: keys of a relay, and hints, by name.
func presets() map[string]map[string]any {
	var table map[string]map[string]any
	if _, err := toml.Decode(presetFile, &table); err != nil {
		panic(err) // it is a part of the program
	}
	return table
}

// relayFor is what holds for the keys that the table of a relay leaves out: the
// defaults, and over them those of its preset. A preset that is none is refused when
// the key is read.
func relayFor(table map[string]any) *Relay {
	r := defaultRelay()
	name, _ := table["preset"].(string)
	if name == "" {
		return r
	}
	values := presets()[name]
	for _, s := range r.settings("") {
		if v, given := values[s.key]; given {
			if err := s.assign(v); err != nil {
				panic(err)
			}
		}
	}
	return r
}

// Provider is a preset as people choose it.
type Provider struct {
	Name string
	// Host is fixed, or HostForm is how it is made.
	Host, HostForm string
	Username       string // fixed; empty is the customer's
	Login          string // what user name and password are
	Auth           AuthMethod
}

// Providers are all presets, by name.
func Providers() []Provider {
	var list []Provider
	for _, name := range slices.Sorted(maps.Keys(presets())) {
		r := relayFor(map[string]any{"preset": name})
		p := Provider{Name: name, HostForm: Preset(name).hint("host_form"), Username: r.Username, Login: Preset(name).hint("login"), Auth: r.Auth}
		if len(r.Host) > 0 {
			p.Host = r.Host[0]
		}
		list = append(list, p)
	}
	return list
}
