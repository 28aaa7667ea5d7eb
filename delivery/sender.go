package delivery

import (
	"bytes"
	"fmt"
	"io"

	"postino/spool"
	"postino/spool/address"
	"postino/spool/header"
)

// sender is who mail of a route is from, whoever it was from before: some relays take
// the address of the account alone. Empty is nobody.
type sender struct{ template, hostname string }

// of is the address that takes the place of a. The null reverse-path is nobody's, and
// where no address comes of it, a stays.
func (s sender) of(a address.Address) address.Address {
	if s.template == "" || a.IsNull() {
		return a
	}
	return address.Fill(s.template, a, s.hostname)
}

// envelope gives a message of the route its reverse-path.
func (s sender) envelope(m *spool.Message) *spool.Message {
	if s.template == "" {
		return m
	}
	other := *m
	other.Sender = s.of(m.Sender)
	return &other
}

// rewrite gives the content of a batch its author. Names stay, and so does every other
// octet. The reply says why that failed; then nothing must be sent.
func (s sender) rewrite(b *spool.Batch) (why spool.Reply, ok bool) {
	if s.template == "" {
		return why, true
	}
	open := b.Open
	content, err := open()
	if err == nil {
		m := *b.Message
		m.From, m.Size, err = s.measure(content, m.Size)
		content.Close()
		b.Message = &m
	}
	if err != nil {
		return spool.Reply{Status: "4.3.0", Text: spool.CleanText(fmt.Sprintf("from: %v", err)), Command: "sender"}, false
	}
	b.Open = func() (io.ReadCloser, error) {
		content, err := open()
		if err != nil {
			return nil, err
		}
		head, body, err := s.head(content)
		if err != nil {
			content.Close()
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(head, body), content}, nil
	}
	return why, true
}

// measure is the author of a message and its size as they will be.
func (s sender) measure(content io.Reader, size int64) (from string, now int64, err error) {
	section, _, err := header.Read(content, header.Options{})
	if err != nil {
		return "", 0, err
	}
	before, err := section.WriteTo(io.Discard)
	if err != nil {
		return "", 0, err
	}
	s.section(section)
	after, err := section.WriteTo(io.Discard)
	return section.Value("From"), size - before + after, err
}

// head is the header section as it is sent, and what follows it.
func (s sender) head(content io.Reader) (head *bytes.Buffer, body io.Reader, err error) {
	section, body, err := header.Read(content, header.Options{})
	if err != nil {
		return nil, nil, err
	}
	s.section(section)
	head = new(bytes.Buffer)
	_, err = section.WriteTo(head)
	return head, body, err
}

func (s sender) section(section *header.Section) {
	section.Rewrite(s.of, "From", "Sender", "Resent-From", "Resent-Sender")
}
