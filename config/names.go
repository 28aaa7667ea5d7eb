package config

import (
	"io"
	"os"
	"slices"
	"strings"
)

const (
	// maxMailname bounds what is read of /etc/mailname, in octets: a domain name
	// has at most 253 and stands in the first line.
	maxMailname = 4 << 10
	// maxHosts bounds what is read of /etc/hosts, in octets: our own name stands near
	// its top, and lists of advertisers below.
	maxHosts = 64 << 10

	mailnameFile = "/etc/mailname"
	hostsFile    = "/etc/hosts"
)

// kernelName is the kernel's name for this machine, as it is.
func kernelName() string {
	if name, err := os.Hostname(); err == nil && name != "" {
		return name
	}
	return "localhost"
}

// fullName is what hosts(5) at path calls a machine whose name has no dot: the first name
// with one on a line that has this name as well; "" when there is none. So it is what
// hostname -f says, without asking the DNS.
func fullName(path, name string) string {
	if strings.Contains(name, ".") {
		return ""
	}
	for line := range strings.Lines(top(path, maxHosts)) {
		line, _, _ = strings.Cut(line, "#")
		names := strings.Fields(line)
		if len(names) < 3 || !slices.Contains(names[1:], name) {
			continue
		}
		for _, full := range names[1:] {
			if strings.Contains(full, ".") && !strings.HasPrefix(full, "localhost") && isDomain(full) {
				return full
			}
		}
	}
	return ""
}

// mailname is the first word of the file at path, or "" when there is none that
// could be a domain. The file belongs to the system, not to us, so a bad one is
// passed over.
func mailname(path string) string {
	words := strings.Fields(top(path, maxMailname))
	if len(words) == 0 || !isDomain(words[0]) {
		return ""
	}
	return words[0]
}

// top is what a file begins with, limit octets at most; "" where it cannot be read.
func top(path string, limit int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit))
	if err != nil {
		return ""
	}
	return string(data)
}
