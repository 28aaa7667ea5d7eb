package submit

import (
	"strings"

	"github.com/emersion/go-smtp"

	"postino/spool/address"
)

const (
	// maxOriginal is the longest address in an ORCPT, in octets (RFC 3461 §4.2).
	maxOriginal = 500
	// maxEnvelopeID is the longest ENVID, in octets (RFC 3461 §4.4).
	maxEnvelopeID = 100
)

// path is the address of a path, completed. Names on localhost are the bare names
// of the front end.
func (tx *transaction) path(p string) (address.Address, error) {
	if p == "" {
		return address.Address{}, nil
	}
	a, err := parsePath(p)
	if a.Domain == "" || strings.EqualFold(a.Domain, "localhost") {
		a.Domain = tx.policy.Domain
	}
	return a, err
}

// isBare reports whether a path, as go-smtp gives it, is a name of this machine.
func isBare(path string) bool {
	a, err := parsePath(path)
	return err == nil && (a.Domain == "" || strings.EqualFold(a.Domain, "localhost"))
}

// parsePath turns what go-smtp made of a path into an address: it has removed the
// quotes of the local part, so that only the last @ separates.
func parsePath(p string) (address.Address, error) {
	a := address.Address{Local: p}
	if i := strings.LastIndexByte(p, '@'); i >= 0 {
		a = address.Address{Local: p[:i], Domain: p[i+1:]}
	}
	return address.Parse(a.String())
}

func checkEnvelopeID(o *smtp.MailOptions) error {
	if len(o.EnvelopeID) > maxEnvelopeID {
		return refuse(501, smtp.EnhancedCode{5, 5, 4}, "ENVID: an identifier has at most %d characters", maxEnvelopeID)
	}
	return nil
}

func checkOriginal(o *smtp.RcptOptions) error {
	if len(o.OriginalRecipient) > maxOriginal {
		return refuse(501, smtp.EnhancedCode{5, 5, 4}, "ORCPT: an address has at most %d characters", maxOriginal)
	}
	return nil
}
