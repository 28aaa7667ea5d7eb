package relay

import (
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-smtp"

	"postino/spool"
	"postino/spool/address"
)

// badAddress reports what must not go on the wire: what would end the path or the
// line early and have the rest read as parameters or commands. A local part may
// hold anything else, since Address.String quotes it.
func badAddress(a address.Address) bool {
	const controls = "\x00\x01\x02\x03\x04\x05\x06\x07\x08\t\n\v\f\r\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"
	return a.Local == "" || a.Domain == "" || !utf8.ValidString(a.Local+a.Domain) ||
		strings.ContainsAny(a.Local, controls) ||
		strings.ContainsAny(a.Domain, controls+" <>()\"\\,;@")
}

// printable reports whether s may be the value of ENVID or ORCPT: go-smtp refuses
// the whole command otherwise.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' })
}

// mailOptions are the parameters of MAIL. go-smtp leaves out what the remote does
// not offer; what it would refuse is left out here, since mail is worth more than
// its DSN parameters.
func mailOptions(j *job, to []int) *smtp.MailOptions {
	o := &smtp.MailOptions{Size: j.Message.Size, UTF8: needsUTF8(j, to)}
	switch ret := smtp.DSNReturn(strings.ToUpper(j.Message.Return)); ret {
	case smtp.DSNReturnFull, smtp.DSNReturnHeaders:
		o.Return = ret
	}
	if printable(j.Message.EnvelopeID) {
		o.EnvelopeID = j.Message.EnvelopeID
	}
	return o
}

// rcptOptions are the parameters of RCPT, under the same rule.
func rcptOptions(r *spool.Recipient) *smtp.RcptOptions {
	o := &smtp.RcptOptions{}
	for _, word := range r.Notify {
		switch n := smtp.DSNNotify(strings.ToUpper(word)); n {
		case smtp.DSNNotifyNever:
			o.Notify = []smtp.DSNNotify{n}
		case smtp.DSNNotifyDelayed, smtp.DSNNotifyFailure, smtp.DSNNotifySuccess:
			if len(o.Notify) == 0 || o.Notify[0] != smtp.DSNNotifyNever {
				o.Notify = append(o.Notify, n)
			}
		}
	}
	kind, original, typed := strings.Cut(r.Original, ";")
	if !typed {
		kind, original = "rfc822", r.Original
	}
	if strings.EqualFold(kind, "rfc822") && original != "" && printable(original) {
		o.OriginalRecipientType, o.OriginalRecipient = smtp.DSNAddressTypeRFC822, original
	}
	return o
}
