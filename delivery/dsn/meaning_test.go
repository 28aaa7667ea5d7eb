package dsn

import (
	"strings"
	"testing"

	"postino/spool"
)

// What the large providers and the usual servers write is understood, whatever status
// they give it, and what we say ourselves is not guessed at.
func TestReadingsOfWhatServersWrite(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		code         int
		status, text string
		want         string
	}{
		{550, "5.1.1", "The email account that you tried to reach does not exist. Please try double-checking", "no such mailbox"},
		{550, "5.4.1", "Recipient address rejected: Access denied. [AM5EUR02FT012.eop-EUR02.prod.protection.outlook.com]", "no such mailbox"},
		{554, "5.0.0", "delivery error: dd This user doesn't have a yahoo.com account (bob@yahoo.com) [0]", "no such mailbox"},
		{550, "5.1.1", "<spam@x.test>: Recipient address rejected: User unknown in virtual mailbox table", "no such mailbox"},
		{550, "5.0.0", "<spam@x.test> never heard of", "refused it"},
		{452, "4.2.2", "The recipient's inbox is out of storage space.", "full"},
		{550, "5.7.1", "mailbox full", "full"},
		{550, "5.2.1", "The email account that you tried to reach is disabled.", "disabled"},
		{450, "4.2.1", "The user you are trying to contact is receiving mail at a rate that prevents additional messages", "too much"},
		{421, "4.7.0", "[TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints", "too much"},
		{451, "4.7.500", "Server busy. Please try again later from [192.0.2.1].", "too much"},
		{454, "4.7.0", "Throttling failure: Maximum sending rate exceeded.", "too much"},
		{550, "5.7.26", "This mail has been blocked because the sender is unauthenticated.", "SPF, DKIM or DMARC"},
		{550, "5.7.1", "Unauthenticated email from x.test is not accepted due to domain's DMARC policy.", "SPF, DKIM or DMARC"},
		{550, "5.7.509", "Access denied, sending domain x.test does not pass DMARC verification", "SPF, DKIM or DMARC"},
		{550, "5.7.515", "Access denied, sending domain x.test doesn't meet the required authentication level.", "SPF, DKIM or DMARC"},
		{550, "5.7.1", "SPF validation failed", "SPF record"},
		{550, "5.7.25", "The IP address sending this message does not have a PTR record setup", "reverse DNS"},
		{450, "4.7.25", "Client host rejected: cannot find your hostname, [192.0.2.1]", "reverse DNS"},
		{550, "5.7.1", "Unfortunately, messages from [192.0.2.1] weren't sent. Part of their network is on our block list (S3140).", "block list"},
		{554, "5.7.1", "Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org", "block list"},
		{550, "5.7.1", "Our system has detected that this message is likely unsolicited mail.", "spam"},
		{554, "5.7.9", "Message not accepted for policy reasons.", "spam"},
		{552, "5.7.0", "This message was blocked because its content presents a potential security issue.", "attached"},
		{450, "4.2.0", "<bob@x.test>: Recipient address rejected: Greylisted, see http://postgrey.schweikert.ch/", "strangers"},
		{451, "4.7.1", "Greylisting in action, please come back later", "strangers"},
		{552, "5.3.4", "Message size exceeds fixed limit", "too large"},
		{554, "5.7.1", "<bob@x.test>: Relay access denied", "does not take mail for this domain"},
		{550, "5.7.60", "Client does not have permissions to send as this sender", "sender's address"},
		{530, "5.7.0", "Must issue a STARTTLS command first", "encrypted"},
		{451, "4.7.0", "Temporary system problem. Try again later.", "security or policy"},
		{530, "5.7.0", "Authentication Required. Learn more at", "credentials"},
		{535, "4.7.8", "Username and Password not accepted", "credentials"},
		{550, "5.7.133", "RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required", "outside"},
		{0, "5.1.2", "x.test: no such domain", "no such domain"},
		{0, "5.7.1", "greylist", "rule of the server"},
		{0, "4.4.1", "connection refused", "cannot be reached"},
		{0, "4.7.4", "STARTTLS is not offered: mail waits; DANE demands TLS of mx.x.test", "encrypted connection"},
		{0, "4.7.5", "certificate of mx.x.test not accepted: expired (MTA-STS demands one that is: mail waits)", "did not prove"},
		{0, "5.7.30", "the message requires TLS all the way: REQUIRETLS, which mx.x.test does not offer", "stays protected"},
		{0, "5.4.6", "mail loop: 101 Received fields", "circles"},
		{0, "4.3.5", "DKIM: no such file", "set up"},
	} {
		got := Read(spool.Reply{Code: tt.code, Status: tt.status, Text: tt.text})
		if !strings.Contains(got.Means, tt.want) || got.Do == "" {
			t.Errorf("%d %s %s: %+v, want %q", tt.code, tt.status, tt.text, got, tt.want)
		}
	}
	expired := spool.Reply{Code: 452, Status: "4.2.2", Text: "over quota"}.Expired(5 * 24 * 3600e9)
	if got := Read(expired).Means; got != "It could not be delivered in the time it had. At last: the mailbox is full" {
		t.Errorf("expired: %s", got)
	}
}
