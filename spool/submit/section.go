package submit

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/emersion/go-smtp"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/header"
)

// maxHops is how many Received fields a message may have before it is taken to
// be going in circles. RFC 5321 §6.3 asks for at least 100 in a relay; what a
// front end submits has hardly any.
const maxHops = 100

// isBulk reports whether a message says that it is one of many: Precedence, which no
// standard defines and everybody knows (RFC 3834 §2 names these values), or the
// fields of a mailing list (RFC 2919, RFC 2369).
func isBulk(section *header.Section) bool {
	switch strings.ToLower(section.Value("Precedence")) {
	case "bulk", "list", "junk":
		return true
	}
	return section.Has("List-Id") || section.Has("List-Unsubscribe")
}

func (tx *transaction) checkHops(section *header.Section) error {
	hops := 0
	for _, f := range section.Fields() {
		if strings.EqualFold(f.Name, "Received") {
			hops++
		}
	}
	if hops <= maxHops {
		return nil
	}
	return tx.object(refuse(554, smtp.EnhancedCode{5, 4, 6}, "mail loop: %d Received fields", hops))
}

// complete does to the header section what RFC 6409 §8 lets a submission server
// do, the same for every carrier, and nothing more.
func (tx *transaction) complete(section *header.Section, id spool.ID, handedIn time.Time) {
	now := time.Now()
	tx.msg.Arrived = now
	if !handedIn.IsZero() && handedIn.Before(now) {
		tx.msg.Arrived = handedIn
	}
	section.Drop("Bcc", "Resent-Bcc", "Return-Path", "Content-Length")
	prefix := ""
	if slices.ContainsFunc(section.Fields(), func(f header.Field) bool {
		return len(f.Name) > 7 && strings.EqualFold(f.Name[:7], "Resent-")
	}) {
		prefix = "Resent-"
	}
	// A message that is sent again has its own Date and Message-ID already; where
	// it has none, it needs them as well.
	for _, p := range slices.Compact([]string{"", prefix}) {
		if !section.Has(p + "From") {
			section.Append(p+"From", tx.generatedFrom())
		}
		if !section.Has(p + "Date") {
			section.Append(p+"Date", header.Date(tx.msg.Arrived))
		}
		if !section.Has(p + "Message-ID") {
			section.Append(p+"Message-ID", messageID(id, tx.policy.Hostname))
		}
	}
	tx.policy.rewrite(section)
	section.Prepend("Received", fmt.Sprintf("by %s (postino, from userid %s) id %s; %s",
		tx.policy.Hostname, strconv.Itoa(tx.msg.Origin.UID), id, header.Date(now)))
}

func (tx *transaction) generatedFrom() string {
	if tx.msg.Sender.IsNull() {
		return header.Mailbox("Mail Delivery System", address.Address{Local: "MAILER-DAEMON", Domain: tx.policy.Domain})
	}
	return header.Mailbox("", tx.msg.Sender)
}

// messageID makes a Message-ID (RFC 5322 §3.6.4) of the queue ID, so that it can
// be found again, and something that another machine of the same name would not
// have.
func messageID(id spool.ID, host string) string {
	return fmt.Sprintf("<%s.%08x@%s>", id, rand.Uint32(), host)
}
