package dsn

import (
	"cmp"
	"slices"
	"strings"

	"postino/spool"
)

// Reading is a refusal in the words of a person: what it means, and what whoever sent
// the mail can do about it. Neither has a full stop.
type Reading struct {
	Means, Do string
	// Ours: it is about how mail is sent from here, and whoever runs that can look.
	Ours bool
}

// Read reads a reply that is no success. What a server writes says more than its
// status: many give 5.7.1 to everything, and some give 5.4.1 to an unknown user.
func Read(reply spool.Reply) Reading {
	if said, expired := lastSaid(reply); expired {
		last := Read(said)
		return Reading{"It could not be delivered in the time it had. At last: " + lowerFirst(last.Means),
			"Send it again when that is over, or reach the recipient in another way", last.Ours}
	}
	_, detail, _ := strings.Cut(reply.Status, ".")
	temporary := reply.Class() != spool.Permanent
	if reply.Code != 0 && !slices.Contains(strings.Fields(precise), detail) { // our own words are not guessed at
		text := wordsOf(reply.Text)
		for _, w := range wordings() {
			if slices.ContainsFunc(w.any, func(part string) bool { return strings.Contains(text, part) }) {
				return w.reading(temporary)
			}
		}
	}
	for _, s := range statuses() {
		if slices.Contains(strings.Fields(s.details), detail) {
			return s.reading(temporary)
		}
	}
	subject, _, _ := strings.Cut(detail, ".")
	return bySubject(subject).reading(temporary)
}

// precise are the statuses, without the class, that are given for one reason alone.
const precise = "1.2 1.3 1.7 1.8 1.10 2.2 2.3 3.4 4.6 6.7 7.20 7.21 7.22 7.23 7.24 7.25 7.26 7.27"

// wordsOf is a text in lower case without the addresses in it, which may have any word.
func wordsOf(text string) string {
	words := strings.Fields(strings.ToLower(text))
	return strings.Join(slices.DeleteFunc(words, func(w string) bool { return strings.Contains(w, "@") }), " ")
}

// lastSaid is what was said last of a message that is given up for its age.
func lastSaid(reply spool.Reply) (spool.Reply, bool) {
	if reply.Status != "4.4.7" || reply.Said() == reply.String() {
		return reply, false
	}
	said := reply
	said.Text = reply.Said()
	said.Status = ""
	for word := range strings.FieldsSeq(said.Text) {
		if strings.HasPrefix(word, "4.") && strings.Count(word, ".") == 2 {
			said.Status = word
			break
		}
	}
	said.Status = cmp.Or(said.Status, "4.0.0")
	return said, true
}

// trouble is one kind of refusal. An empty later is means with "for now"; where it
// says the same for both, it is given twice.
type trouble struct{ means, later, do string }

func (t trouble) reading(temporary bool) Reading {
	if !temporary {
		return Reading{t.means, t.do, t.do == doPostmaster}
	}
	return Reading{cmp.Or(t.later, strings.Replace(t.means, "was refused", "was refused for now", 1)), t.do, t.do == doPostmaster}
}

const (
	doCheckAddress = "Check the address, letter by letter, and send it again"
	doElsewhere    = "Reach the recipient in another way, and send it again later"
	doPostmaster   = "Nothing is wrong with your mail: tell postmaster, who can mend that"
)

func unknownUser() trouble {
	return trouble{means: "There is no such mailbox at this address", do: doCheckAddress}
}
func fullMailbox() trouble { return trouble{means: "The mailbox is full", do: doElsewhere} }
func disabled() trouble {
	return trouble{means: "The mailbox is disabled", later: "The mailbox takes no mail at the moment", do: doElsewhere}
}
func tooLarge() trouble {
	return trouble{means: "The mail is too large for this mailbox or server", do: "Send less at a time, or a link to a place where the rest can be fetched"}
}
func blockList() trouble {
	return trouble{means: "The mail was refused because the server it came from has a bad reputation or is on a block list", do: doPostmaster}
}
func unauthenticated() trouble {
	return trouble{means: "The mail was refused because it is not authenticated as its sender's domain demands, by SPF, DKIM or DMARC", do: doPostmaster}
}
func spf() trouble {
	return trouble{means: "The mail was refused because the SPF record of the sender's domain does not allow the server it came from", do: doPostmaster}
}
func signature() trouble {
	return trouble{means: "The mail was refused because of its DKIM signature", do: doPostmaster}
}
func reverseDNS() trouble {
	return trouble{means: "The mail was refused because name and address of the server it came from do not match (reverse DNS)", do: doPostmaster}
}
func dangerous() trouble {
	return trouble{means: "The mail was refused because of what is in it or attached to it", do: "Send it without the attachment, or in another form"}
}
func spam() trouble {
	return trouble{means: "The mail was refused because it looks like spam", do: "Write it in other words, with fewer links, or ask the recipient in another way to let mail of yours pass"}
}
func relayDenied() trouble {
	return trouble{means: "The server does not take mail for this domain", do: "Check the part of the address behind the @; if it is right, tell postmaster"}
}
func senderRefused() trouble {
	return trouble{means: "The server does not accept the sender's address", do: "Send it from an address that can be answered, or ask postmaster"}
}
func credentials() trouble {
	return trouble{means: "The server does not accept our credentials, or wants some", do: doPostmaster}
}
func tooMuch() trouble {
	return trouble{means: "The server takes no more mail from here for now, since there was too much of it", do: "Send it again later, and less at a time"}
}
func encryption() trouble {
	return trouble{means: "An encrypted connection was demanded, and could not be had", do: doPostmaster}
}
func noOutsiders() trouble {
	return trouble{means: "The recipient takes no mail from outside, or not from you", do: "Ask the recipient to let mail of yours pass"}
}

// wording is a trouble by what servers write about it, in lower case.
type wording struct {
	any []string
	trouble
}

// wordings are in the order in which they are looked for: what is said of a server's
// reputation often says "policy" too, and what is said of DMARC "unauthenticated".
// Behind each: who writes so.
func wordings() []wording {
	return []wording{
		{[]string{"greylist", "graylist", "grey-list", "grey list"}, // postgrey, rspamd, Exim
			trouble{"The server lets mail from strangers wait", "The server lets mail from strangers wait a while before it takes it (greylisting)", "Send it again"}},
		{[]string{"over quota", "overquota", "mailbox full", "mailbox is full", "quota exceeded (mailbox", "insufficient storage", "exceeded storage",
			"out of storage", "inbox is full"}, fullMailbox()}, // Gmail, Outlook, Dovecot, iCloud
		{[]string{"dmarc", "unauthenticated email", "mail is unauthenticated", "required authentication level", "s:dmrc"}, unauthenticated()}, // Gmail, Outlook, Yahoo
		{[]string{"reverse dns", "reverse hostname", "ptr record", "rdns", "cannot find your hostname", "no ptr"}, reverseDNS()},              // Gmail, Postfix
		{[]string{"spf ", "spf:", "spf)"}, spf()},
		{[]string{"spamhaus", "spamcop", "barracudacentral", "block list", "blocklist", "blacklist", "black list", "dnsbl", "blocked using", "(s3140)", "(s3150)", // Outlook
			"banned sending ip", "poor reputation", "low reputation", "bad reputation", "traffic not accepted from this ip", "[ts0", "[bl2", "ipbl", "reputation of"}, blockList()}, // Yahoo
		{[]string{"recipientnotfound", "recipnotfound", "user unknown", "unknown user", "no such user", "no such recipient", "no such mailbox", "user not found",
			"mailbox not found", "mailbox unavailable or", "does not exist", "doesn't exist", "recipient not found", "unknown recipient", "invalid recipient", "invalid mailbox",
			"recipient address rejected: access denied", // Outlook
			"doesn't have a ", "not a valid mailbox", "unrouteable address"}, // Yahoo, Exim
			unknownUser()},
		{[]string{"account is disabled", "account has been disabled", "mailbox disabled", "mailbox is disabled", "account is inactive", "account has been deactivated"}, disabled()},
		{[]string{"message size exceeds", "message too large", "message too big", "exceeds maximum size", "exceeds size limit", "exceeded our message size", "size limits",
			"message file too big"}, tooLarge()},
		{[]string{"relay access denied", "relaying denied", "unable to relay", "relay not permitted", "not permitted to relay", "relay denied"}, relayDenied()},
		{[]string{"sender verify", "sender address rejected", "sender domain must", "permissions to send as this sender", "not owned by user", "sender rejected"}, senderRefused()}, // Exim, Postfix, Outlook
		{[]string{"potential security issue", "virus", "malware", "attachment", "banned file"}, dangerous()},
		{[]string{"rate limited", "rate limit", "unusual rate", "too many messages", "too many connections", "too many mails", "sending limit", "sending quota", "sending rate",
			"receiving mail at a rate", "receiving mail too quickly", "temporarily deferred due to", "throttl", "server busy"}, tooMuch()}, // SES, Gmail, Yahoo, Outlook
		{[]string{"starttls", "tls required", "encryption required", "requires encryption"}, encryption()},
		{[]string{"spam", "unsolicited", "[ph01]", "not accepted for policy reasons", "content rejected", "bulk mail"}, spam()}, // Gmail, Yahoo, rspamd
		{[]string{"not authorized to send", "sendernotauthenticatedforgroup", "sender not authenticated for group", "only accepts mail from", "recipnotingroup"}, noOutsiders()},
		{[]string{"authentication required", "must authenticate", "must be authenticated", "authentication failed", "password not accepted", "authentication credentials"}, credentials()},
	}
}

// status is a trouble by its enhanced status without the class, several of them.
type status struct {
	details string
	trouble
}

// statuses are those of RFC 3463, RFC 7505, RFC 7372, RFC 8601 and RFC 6531 that a
// sender meets, and Gmail's and Outlook's own.
func statuses() []status {
	return []status{
		{"1.1 1.6", unknownUser()},
		{"1.2", trouble{means: "There is no such domain, or it takes no mail", do: "Check the part of the address behind the @, and send it again"}},
		{"1.3", trouble{means: "The address is not written correctly", do: doCheckAddress}},
		{"1.7 1.8", senderRefused()},
		{"1.10", trouble{means: "This domain does not take any mail", do: "Check the part of the address behind the @; if it is right, reach the recipient in another way"}},
		{"2.1", disabled()},
		{"2.2", fullMailbox()},
		{"2.3 3.4", tooLarge()},
		{"2.4", trouble{means: "The mailing list could not be expanded", do: doPostmaster}},
		{"3.1", trouble{means: "The server has no room", later: "The server has no room at the moment", do: doElsewhere}},
		{"3.2", trouble{means: "The server does not take mail", later: "The server does not take mail at the moment", do: doElsewhere}},
		{"3.5", trouble{means: "Something is wrong with how the mail server here is set up", do: doPostmaster}},
		{"4.1", trouble{means: "The server cannot be reached", do: doElsewhere}},
		{"4.2", trouble{means: "The connection to the server was lost", do: doElsewhere}},
		{"4.3", trouble{means: "The domain name system has no answer for this domain", later: "The domain name system has no answer for this domain at the moment", do: "Check the part of the address behind the @, and send it again later"}},
		{"4.4", trouble{means: "No server is known for this domain", do: "Check the part of the address behind the @, and send it again"}},
		{"4.5", tooMuch()},
		{"4.6", trouble{means: "The mail went in circles and was stopped", do: doPostmaster}},
		{"4.7", trouble{means: "It could not be delivered in the time it had", do: doElsewhere}},
		{"5.3", trouble{means: "The mail has too many recipients", later: "The server takes fewer recipients at a time", do: "Send it to fewer recipients at a time"}},
		{"6.7", trouble{means: "The server cannot handle addresses with characters such as these", do: "Use an address of plain letters, if the recipient has one"}},
		{"6.0 6.1 6.2 6.3", trouble{means: "The server cannot handle the form of this mail", do: "Send it in a simpler form, or without the attachment"}},
		{"7.1 7.2", trouble{means: "The mail was refused by a rule of the server", do: "If it goes on, ask the recipient in another way to let mail of yours pass, or postmaster"}},
		{"7.4 7.10", encryption()},
		{"7.5", trouble{means: "The server did not prove that it is the one which it should be", do: "Ask the recipient in another way to tell the postmaster there"}},
		{"7.30", trouble{means: "The mail may only go where it stays protected all the way, and the server does not promise that", do: "Send it without that demand, or in another way"}},
		{"7.20 7.21 7.22", signature()},
		{"7.23 7.24", spf()},
		{"7.25", reverseDNS()},
		{"7.26 7.509 7.515", unauthenticated()},
		{"7.27", trouble{means: "The mail was refused because its sender's domain takes no mail itself", do: "Send it from an address that can be answered"}},
		{"7.28 7.650", tooMuch()},
		{"7.606", blockList()},
		{"7.8 7.9", credentials()},
		{"7.124 7.133", noOutsiders()},
	}
}

// bySubject is what the second number of a status says (RFC 3463 §3).
func bySubject(subject string) trouble {
	switch subject {
	case "1":
		return trouble{means: "Something is wrong with the address", do: doCheckAddress}
	case "2":
		return trouble{means: "Something is wrong with the mailbox", do: doElsewhere}
	case "3":
		return trouble{means: "The mail system of the recipient has a problem", do: doElsewhere}
	case "4":
		return trouble{means: "The mail could not be brought to the server", do: doElsewhere}
	case "5":
		return trouble{means: "The servers did not understand each other", do: doPostmaster}
	case "6":
		return trouble{means: "The server cannot handle the content of this mail", do: "Send it in a simpler form, or without the attachment"}
	case "7":
		return trouble{means: "The mail was refused for reasons of security or policy", do: "Ask the recipient in another way, or postmaster"}
	}
	return trouble{means: "The server refused it", later: "The server refused it for now", do: "What the server said may tell why; else ask postmaster"}
}

func lowerFirst(s string) string { return strings.ToLower(s[:1]) + s[1:] }
