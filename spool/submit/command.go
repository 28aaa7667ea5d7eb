package submit

import (
	"regexp"
	"strconv"
	"strings"
)

// completePath makes the bare name in a MAIL or RCPT command one on localhost,
// which is what it means here; the server's parser knows no bare names.
func completePath(line []byte) []byte {
	text := string(line)
	_, rest, found := strings.Cut(text, ":")
	verb := strings.ToUpper(strings.Join(strings.Fields(text[:len(text)-len(rest)]), " "))
	if !found || verb != "MAIL FROM:" && verb != "RCPT TO:" {
		return line
	}
	path := strings.TrimLeft(rest, " ")
	if !strings.HasPrefix(path, "<") {
		return line
	}
	end := strings.IndexByte(path, '>')
	if end <= 1 || strings.ContainsAny(path[:end], `@" `) {
		return line
	}
	at := len(text) - len(path) + end
	return []byte(text[:at] + "@localhost" + text[at:])
}

// chunkSize is how many octets of content follow a command line. It must agree
// with the server, or content is taken for commands.
func chunkSize(line string) int64 {
	line = strings.TrimRight(line, "\r\n")
	if len(line) < 6 || !strings.EqualFold(line[:5], "BDAT ") {
		return 0
	}
	args := strings.Fields(line[5:])
	if len(args) == 0 || len(args) > 2 || len(args) == 2 && !strings.EqualFold(args[1], "LAST") {
		return 0
	}
	n, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return 0
	}
	return int64(n)
}

const (
	// maxServerSize is the largest SIZE that the server's parser takes, in octets. Where
	// max_message_size is above it, too large a message is found out by its content.
	maxServerSize = 1<<32 - 1
	// maxSizeDigits is how long a SIZE may be (RFC 1870 §3).
	maxSizeDigits = 20
)

// sizeParameter finds SIZE behind the path of a MAIL command, in whose quoted local part
// anything may stand.
var sizeParameter = regexp.MustCompile(`(?i)^MAIL +FROM: *(?:<(?:"(?:\\.|[^"\\])*"|[^">])*>|[^<"\s]+)(?:\s.*)?\sSIZE=([0-9]+)(?:\s|$)`)

// boundSize makes a SIZE that is too large for the server's parser the largest that is
// not: such a message is too large, and no command in error.
func boundSize(line []byte) []byte {
	at := sizeParameter.FindSubmatchIndex(line)
	if at == nil || at[3]-at[2] > maxSizeDigits {
		return line
	}
	if n, err := strconv.ParseUint(string(line[at[2]:at[3]]), 10, 64); err == nil && n <= maxServerSize {
		return line
	}
	text := string(line)
	return []byte(text[:at[2]] + strconv.FormatUint(maxServerSize, 10) + text[at[3]:])
}
