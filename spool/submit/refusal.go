package submit

import (
	"fmt"

	"github.com/emersion/go-smtp"

	"postino/spool"
	"postino/spool/header"
)

func refuse(code int, status smtp.EnhancedCode, format string, args ...any) *smtp.SMTPError {
	return &smtp.SMTPError{Code: code, EnhancedCode: status, Message: fmt.Sprintf(format, args...)}
}

// object refuses. The sender of a drop file was told long ago that it is in our hands,
// and is told now by the runner's report.
func (tx *transaction) object(e *smtp.SMTPError) error {
	if tx.msg.Origin.Via != spool.ViaDrop {
		return e
	}
	if tx.msg.Refused == nil {
		status := fmt.Sprintf("%d.%d.%d", e.EnhancedCode[0], e.EnhancedCode[1], e.EnhancedCode[2])
		tx.msg.Refused = &spool.Reply{Status: status, Text: e.Message, Command: "policy"}
	}
	return nil
}

// nestedMail refuses a second MAIL (RFC 5321 §4.1.4). The server would go on with
// the recipients of the first, which we have forgotten.
func nestedMail() error {
	return refuse(503, smtp.EnhancedCode{5, 5, 1}, "a transaction is under way: RSET ends it")
}

// noRecipients refuses content that is for nobody.
func noRecipients() error {
	return refuse(554, smtp.EnhancedCode{5, 5, 1}, "no recipients")
}

func tooLarge(limit int64) *smtp.SMTPError {
	return refuse(552, smtp.EnhancedCode{5, 3, 4}, "message larger than %d octets: max_message_size sets the limit", limit)
}

// tooMany refuses a recipient.
func (s *session) tooMany(format string, limit int) *smtp.SMTPError {
	e := refuse(550, smtp.EnhancedCode{5, 5, 3}, format, limit)
	if !s.conn.trusted() {
		// A client that speaks SMTP itself sends the rest by and by.
		e.Code, e.EnhancedCode = 452, smtp.EnhancedCode{4, 5, 3}
	}
	return e
}

// noRoom refuses what a full disk keeps us from storing. Nothing of it is left.
func noRoom() *smtp.SMTPError {
	return refuse(452, smtp.EnhancedCode{4, 3, 1}, "no room in the spool: make room on its file system and send it again")
}

func tooLargeSection() *smtp.SMTPError {
	return refuse(554, smtp.EnhancedCode{5, 6, 0}, "header section larger than %d octets or %d fields", header.MaxSection, header.MaxFields)
}
