package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// manual is the source of postino.toml(5): the text after each key's item, and
// the keys in order.
func manual(t *testing.T) (page string, keys []string, text map[string]string) {
	t.Helper()
	data, err := os.ReadFile("../man/postino.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	text = map[string]string{}
	table, key := "", ""
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, ".Sh ") {
			table, key = "", ""
		} else if name, found := strings.CutPrefix(line, ".Ss The ["); found {
			table, _, _ = strings.Cut(strings.TrimPrefix(name, "["), "]")
			table, key = table+".", ""
		} else if name, found := strings.CutPrefix(line, ".It Ic "); found {
			name, _, _ = strings.Cut(name, " ")
			key = table + name
			keys = append(keys, key)
		} else if key != "" {
			text[key] += line
		}
	}
	return string(data), keys, text
}

func TestManualHasEveryKeyInOrder(t *testing.T) {
	// A route has the keys of the relay; the manual says so once.
	want := slices.DeleteFunc(keyNames(), func(key string) bool {
		name, ofRoute := strings.CutPrefix(key, "route.")
		return ofRoute && slices.Contains(keyNames(), "relay."+name)
	})
	if _, got, _ := manual(t); !slices.Equal(got, want) {
		t.Errorf("postino.toml(5) describes\n%q\nthis version has\n%q", got, want)
	}
}

func TestManualGivesTheDefaults(t *testing.T) {
	_, _, text := manual(t)
	c := Default()
	c.Relay = defaultRelay()
	for _, s := range c.settings() {
		v := reflect.ValueOf(s.dst).Elem()
		if v.IsZero() {
			continue
		}
		want := `\(dq` + fmt.Sprint(v) + `\(dq`
		if v.Kind() == reflect.Int {
			want = fmt.Sprintf("Default: %d.", v.Int())
		}
		if !strings.Contains(text[s.key], want) || !strings.Contains(strings.ToLower(text[s.key]), "default") {
			t.Errorf("%s: postino.toml(5) does not give %s as the default:\n%s", s.key, want, text[s.key])
		}
		if s.max != 0 && !strings.Contains(text[s.key], fmt.Sprintf("%d to %d", max(s.min, 1), s.max)) &&
			!strings.Contains(text[s.key], fmt.Sprint(s.max)) {
			t.Errorf("%s: postino.toml(5) does not give the bounds %d and %d", s.key, s.min, s.max)
		}
	}
}

func TestManualExamplesAreAccepted(t *testing.T) {
	page, _, _ := manual(t)
	_, examples, found := strings.Cut(page, ".Sh EXAMPLES\n")
	if !found {
		t.Fatal("no examples")
	}
	examples, _, _ = strings.Cut(examples, "\n.Sh ")
	accepted := 0
	for block := range strings.SplitSeq(examples, ".Bd -literal") {
		_, block, _ = strings.Cut(block, "\n")
		src, _, _ := strings.Cut(block, ".Ed")
		if !strings.Contains(src, " = ") {
			continue
		}
		if _, err := Parse("postino.toml.5", []byte(src)); err != nil {
			t.Errorf("%v in\n%s", err, src)
		}
		accepted++
	}
	if accepted < 2 {
		t.Errorf("%d examples; want a smarthost and capture mode", accepted)
	}
}
