// Package peer reads the configuration of another mail program and writes it as
// postino.toml(5) has it. What has no counterpart is told in comments, never dropped
// in silence; what comes out is accepted by config.Parse.
package peer

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unicode/utf8"
)

// maxFile bounds each file that is read, in octets: the largest map of addresses that
// a person keeps.
const maxFile = 1 << 20

// Import is where to look and what to write.
type Import struct {
	// Root is in front of every path that is read; empty is the system's.
	Root string
	// Home and ConfigHome ($XDG_CONFIG_HOME) are of the user whose own configuration
	// is preferred; empty is nobody's.
	Home, ConfigHome string
	// Secrets is the directory that password_file names; an absolute path.
	Secrets string
	// Hostname is the machine's, in places where the peer has none.
	Hostname string
}

// Imported is a configuration that was taken over.
type Imported struct {
	// Text is a postino.toml, with comments that say where each value is from.
	Text string
	// Notes are what was not taken over, and why; Text has them too.
	Notes []string
	// Passwords are what to write into Secrets.
	Passwords []Password
}

// Password is a file with a password.
type Password struct{ Path, Text string }

// reader reads one peer's configuration into a draft. file is the path given by the
// user, or empty for the usual ones.
type reader func(in *Import, d *draft, file string) error

// readers are the peers by name.
func readers() map[string]reader {
	return map[string]reader{
		"postfix": readPostfix, "exim": readExim, "msmtp": readMsmtp, "ssmtp": readSsmtp,
		"nullmailer": readNullmailer, "dma": readDma, "esmtp": readEsmtp,
	}
}

// Names are the peers, in the order of the manual.
func Names() []string {
	return []string{"postfix", "exim", "msmtp", "ssmtp", "nullmailer", "dma", "esmtp"}
}

// From reads the configuration of the peer with that name, from file or, if that is
// empty, where the peer has it. It fails when there is none, or when that is no such
// configuration.
func (in *Import) From(name, file string) (*Imported, error) {
	read, known := readers()[name]
	if !known {
		return nil, fmt.Errorf("%q is no mail program to take over from: there are %s", name, strings.Join(Names(), ", "))
	}
	d := &draft{peer: name, secrets: in.Secrets}
	if err := read(in, d, file); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return d.finish()
}

// read is the text of a file of at most 1 MiB.
func (in *Import) read(path string) (string, error) {
	// O_NONBLOCK: opening a FIFO would wait for its writer before we can see what it is.
	f, err := os.OpenFile(filepath.Join(in.Root, path), os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return "", err
	case len(data) > maxFile:
		return "", fmt.Errorf("%s: more than 1 MiB: is it the right file?", path)
	case !utf8.Valid(data) || strings.ContainsRune(string(data), 0):
		return "", fmt.Errorf("%s: not a text", path)
	}
	return strings.ReplaceAll(string(data), "\r\n", "\n"), nil
}

// first is the text of the first of these files that is there.
func (in *Import) first(paths ...string) (path, text string, err error) {
	for _, path := range paths {
		text, err := in.read(path)
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return path, text, err
		}
	}
	return "", "", fmt.Errorf("no configuration at %s: name the file", strings.Join(paths, ", "))
}

// usual are the paths to look at: the file given by the user alone, or else the others.
func usual(file string, others ...string) []string {
	if file != "" {
		return []string{file}
	}
	return others
}

// own are the paths below the user's home, if there is one.
func (in *Import) own(name, inConfigHome string) []string {
	var paths []string
	if in.Home != "" {
		paths = append(paths, filepath.Join(in.Home, name))
	}
	if in.ConfigHome != "" && inConfigHome != "" {
		paths = append(paths, filepath.Join(in.ConfigHome, inConfigHome))
	}
	return paths
}

// word is the first line of a small file with one value, such as /etc/mailname; empty
// when there is no such file.
func (in *Import) word(path string) string {
	text, err := in.read(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return strings.TrimSpace(line)
}

// exists reports whether there is such a file.
func (in *Import) exists(path string) bool {
	_, err := os.Stat(filepath.Join(in.Root, path))
	return err == nil
}
