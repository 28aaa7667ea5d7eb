package relay

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// extensions are the EHLO keywords of a remote, in upper case, and their
// parameters.
type extensions map[string]string

// parseEHLO reads the reply to EHLO (RFC 5321 §4.1.1.1), whose first line is a
// greeting. Keywords have no case; the form "AUTH=LOGIN" of old servers counts as
// AUTH, together with a proper one.
func parseEHLO(a answer) extensions {
	ext := extensions{}
	if len(a.lines) == 0 {
		return ext
	}
	for _, line := range a.lines[1:] {
		keyword, params, _ := strings.Cut(strings.TrimSpace(line), " ")
		keyword = strings.ToUpper(keyword)
		if mechanism, ok := strings.CutPrefix(keyword, "AUTH="); ok {
			keyword, params = "AUTH", mechanism+" "+params
		}
		if keyword == "AUTH" {
			params = strings.TrimSpace(ext["AUTH"] + " " + params)
		}
		if keyword != "" {
			ext[keyword] = params
		}
	}
	// A limit that is no number says nothing (RFC 1870 §4).
	if size, ok := ext["SIZE"]; ok && size != "" {
		if _, err := strconv.ParseUint(size, 10, 63); err != nil {
			delete(ext, "SIZE")
		}
	}
	return ext
}

func (e extensions) has(keyword string) bool {
	_, ok := e[keyword]
	return ok
}

// maxSize is the largest message the remote takes, in octets; 0 is no limit.
func (e extensions) maxSize() int64 {
	n, _ := strconv.ParseInt(e["SIZE"], 10, 64)
	return n
}

// mechanisms are the SASL mechanisms offered, in upper case.
func (e extensions) mechanisms() []string { return strings.Fields(strings.ToUpper(e["AUTH"])) }

// limit is a number of the LIMITS extension (RFC 9422), such as MAILMAX; 0 when
// the remote gives none.
func (e extensions) limit(name string) int {
	for _, word := range strings.Fields(e["LIMITS"]) {
		key, value, _ := strings.Cut(word, "=")
		if n, err := strconv.Atoi(value); err == nil && n > 0 && strings.EqualFold(key, name) {
			return n
		}
	}
	return 0
}

// ehloName is what we call ourselves: hostname, or the address literal of our
// end of the connection when hostname is not a name that others could resolve
// (RFC 5321 §4.1.3, §4.1.4). Never localhost: providers refuse it.
func ehloName(hostname string, local net.Addr) string {
	name := strings.TrimSuffix(hostname, ".")
	if strings.Contains(name, ".") && strings.Trim(strings.ToLower(name), "abcdefghijklmnopqrstuvwxyz0123456789-._") == "" {
		if _, err := netip.ParseAddr(name); err != nil {
			return name
		}
	}
	ap, err := netip.ParseAddrPort(local.String())
	if err != nil {
		return "[127.0.0.1]"
	}
	ip := ap.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return "[" + ip.String() + "]"
	}
	return "[IPv6:" + ip.String() + "]"
}
