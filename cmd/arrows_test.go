package cmd_test

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows are the packages of the house: on which floor each lives, and which
// others it imports. Imports go down, never up or sideways, and both columns are
// exact, so that a new arrow is a change of one line that somebody sees.
func arrows() map[string]struct {
	floor   int
	imports []string
} {
	return map[string]struct {
		floor   int
		imports []string
	}{
		"spool/address":    {0, nil},
		"delivery/dkim":    {0, nil},
		"delivery/dns":     {0, nil},
		"spool/crashpoint": {0, nil},
		"spool/warnings":   {0, nil},
		"config":           {1, []string{"spool/address"}},
		"config/peer":      {2, []string{"config"}},
		"spool/header":     {1, []string{"spool/address"}},
		"spool/handoff":    {1, []string{"spool/address", "spool/crashpoint"}},
		"delivery/aliases": {1, []string{"spool/address"}},
		"spool":            {2, []string{"spool/address", "spool/crashpoint"}},
		"spool/submit":     {3, []string{"spool", "spool/address", "spool/crashpoint", "spool/handoff", "spool/header", "spool/warnings"}},
		"delivery/socks":   {0, nil},
		"delivery/oauth":   {2, []string{"config", "delivery/socks"}},
		"delivery/relay":   {3, []string{"config", "delivery/dns", "delivery/oauth", "delivery/socks", "delivery/tlspolicy", "spool", "spool/address"}},
		"delivery/local":   {3, []string{"config", "spool", "spool/address"}},
		"delivery/dsn":     {3, []string{"spool", "spool/address", "spool/header"}},
		"delivery":         {4, []string{"config", "delivery/aliases", "delivery/dkim", "delivery/dsn", "delivery/local", "delivery/oauth", "delivery/relay", "delivery/tlspolicy", "spool", "spool/address", "spool/header", "spool/warnings"}},
		"delivery/control": {5, []string{"delivery", "spool", "spool/address", "spool/warnings"}},
		"cmd/sendmail":     {6, []string{"spool/address", "spool/handoff", "spool/header"}},
		"cmd/postino": {6, []string{"config", "config/peer", "delivery", "delivery/aliases", "delivery/control", "delivery/dkim", "delivery/dns", "delivery/local", "delivery/oauth", "delivery/relay", "delivery/spf", "spool",
			"spool/address", "spool/handoff", "spool/header", "spool/submit", "spool/warnings"}},
		"delivery/spf":       {1, []string{"delivery/dns"}},
		"delivery/tlspolicy": {1, []string{"delivery/dns"}},

		// For tests alone: nobody imports them but tests.
		"cmd":                       {6, nil},
		"spool/standstill":          {0, nil},
		"spool/spooltest":           {3, []string{"spool", "spool/address", "spool/standstill"}},
		"delivery/relay/relaytest":  {0, nil},
		"delivery/relay/servertest": {0, nil},
		"delivery/oauth/oauthtest":  {0, nil},
		"delivery/dns/dnstest":      {0, nil},
		"cmd/durability":            {7, nil},
		"cmd/durability/disk":       {0, nil},
		"cmd/durability/guest":      {7, []string{"cmd/durability/oracle", "spool"}},
		"cmd/durability/mutant":     {0, nil},
		"cmd/durability/oracle":     {6, []string{"spool"}},
		"cmd/durability/powercut":   {7, nil},
		"cmd/durability/recordfs":   {6, []string{"cmd/durability/disk"}},
	}
}

// libraries are the modules that are not ours: which packages import them, and
// why not ten lines of our own.
func libraries() map[string]struct {
	why string
	by  []string
} {
	return map[string]struct {
		why string
		by  []string
	}{
		"go.etcd.io/bbolt": {"a store that survives a crash: transactions in one file",
			[]string{"spool"}},
		"github.com/emersion/go-smtp": {"SMTP as a server",
			[]string{"spool/submit"}},
		"github.com/emersion/go-sasl": {"AUTH mechanisms, in the types that others take",
			[]string{"delivery/relay"}},
		"golang.org/x/net": {"IDNA and the public suffixes, whose tables nobody writes by hand; a client of SOCKS5, a listener with a limit",
			[]string{"cmd/postino", "delivery/relay", "delivery/socks"}},
		"github.com/BurntSushi/toml": {"the syntax of postino.toml, with line and column of a mistake",
			[]string{"config"}},
		"github.com/emersion/go-msgauth": {"DKIM signatures: canonical forms, and a verifier for the tests",
			[]string{"delivery/dkim"}},
		"github.com/miekg/dns": {"answers that tell NXDOMAIN, no data and failure apart, TTL, AD, TLSA: net.Resolver has none of them",
			[]string{"delivery/dns", "delivery/dns/dnstest"}},
		"github.com/hanwen/go-fuse/v2": {"a file system in user space, which writes down what is done to it; in no program that is installed",
			[]string{"cmd/durability/recordfs"}},
		"golang.org/x/sys": {"system calls that package syscall lacks or has frozen",
			[]string{"cmd/durability/guest", "cmd/durability/recordfs", "cmd/postino", "cmd/sendmail", "delivery/control", "delivery/local", "spool", "spool/handoff", "spool/submit"}},
	}
}

const modulePath = "postino/"

// goPackage is as much of `go list -json` as is needed here.
type goPackage struct {
	ImportPath string
	Imports    []string
}

// packages are those of the module, by their path in it.
func packages(t testing.TB) map[string]goPackage {
	t.Helper()
	list := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	list.Dir = ".."
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]goPackage)
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(p.ImportPath, modulePath)] = p
	}
}

func TestArrowsRunOneWay(t *testing.T) {
	t.Parallel()
	table, found := arrows(), packages(t)
	for name, p := range found {
		row, known := table[name]
		if !known {
			t.Errorf("%s is not in the table of arrows: on which floor does it live?", name)
		}
		for _, path := range p.Imports {
			below, ours := strings.CutPrefix(path, modulePath)
			if !ours {
				continue
			}
			if !slices.Contains(row.imports, below) {
				t.Errorf("%s imports %s, which the table does not have", name, below)
			}
			if table[below].floor >= row.floor {
				t.Errorf("%s, floor %d, imports %s, floor %d", name, row.floor, below, table[below].floor)
			}
		}
	}
	for name, row := range table {
		for _, below := range row.imports {
			if !slices.Contains(found[name].Imports, modulePath+below) {
				t.Errorf("%s does not import %s, which the table has", name, below)
			}
		}
		if _, there := found[name]; !there {
			t.Errorf("%s is in the table and not in the tree", name)
		}
	}
}

func TestLibrariesAreImportedWhereTheyMayBe(t *testing.T) {
	t.Parallel()
	table, used := libraries(), make(map[string][]string)
	for name, p := range packages(t) {
		for _, path := range p.Imports {
			if first, _, _ := strings.Cut(path, "/"); !strings.Contains(first, ".") {
				continue // of the standard library, or ours
			}
			module := moduleOf(path)
			if !slices.Contains(used[module], name) {
				used[module] = append(used[module], name)
			}
			if !slices.Contains(table[module].by, name) {
				t.Errorf("%s imports %s: the table does not say why", name, path)
			}
		}
	}
	for module, row := range table {
		for _, name := range row.by {
			if !slices.Contains(used[module], name) {
				t.Errorf("%s does not import %s, which the table has", name, module)
			}
		}
	}
}

// moduleOf is the module in the table that a package belongs to.
func moduleOf(path string) string {
	for module := range libraries() {
		if path == module || strings.HasPrefix(path, module+"/") {
			return module
		}
	}
	return path
}

// Every caller waits for sendmail to start, and start-up time is what a program
// imports.
func TestSendmailStaysLight(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "postino/cmd/sendmail").Output()
	if err != nil {
		t.Fatal(err)
	}
	heavy := []string{"go.etcd.io/bbolt", "github.com/emersion/go-smtp", "github.com/emersion/go-sasl",
		"github.com/BurntSushi/toml", "crypto/tls", "net/http", "net", "encoding/json", "fmt"}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, "postino/spool/handoff") {
		t.Fatalf("go list: %q", deps)
	}
	for _, dep := range deps {
		if slices.ContainsFunc(heavy, func(h string) bool { return dep == h || h != "net" && strings.HasPrefix(dep, h+"/") }) {
			t.Errorf("sendmail imports %s, if only through others", dep)
		}
	}
}

// The top level is for what a visitor looks for first. Everything else has a home
// below it.
func TestTopLevelIsFixed(t *testing.T) {
	t.Parallel()
	allowed := []string{
		"cmd", "config", "delivery", "man", "spool", "go.mod", "go.sum", "install.sh", "LICENSE", "README.md",
		".ci", ".git", ".gitignore",
		"bin", // what a developer builds; .gitignore has it
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		built, _ := filepath.Match("*.test", e.Name())
		if !built && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}
