package submit

import "bytes"

// standardReply is a reply of the server with the code that RFC 5321 §4.2.2 has for
// what it says: the server has 501 for a command too short to be one, 502, "not
// implemented", for what comes out of sequence, and for AUTH, which we do not offer,
// one by which a client would look for STARTTLS.
func standardReply(line []byte) []byte {
	for _, r := range [...]struct{ says, is string }{
		{"501 5.5.2 Bad command", "500 5.5.2 Bad command"},
		{"502 5.5.1 Please introduce yourself first", "503 5.5.1 EHLO or HELO comes first"},
		{"502 5.5.1 Missing MAIL", "503 5.5.1 Missing MAIL"},
		{"502 5.5.1 Missing RCPT", "503 5.5.1 Missing RCPT"},
		{"523 5.7.10 TLS is required", "502 5.5.1 AUTH is not offered: send mail without"},
	} {
		if rest, ok := bytes.CutPrefix(line, []byte(r.says)); ok {
			return append([]byte(r.is), rest...)
		}
	}
	return line
}
