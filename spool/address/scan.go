package address

import "strings"

// Mailbox is an address and where it was found.
type Mailbox struct {
	Address Address
	// LocalEnd is the offset, in octets, just behind the local part: a bare
	// address is completed by splicing "@domain" in there.
	LocalEnd int
	// Start and End are the offsets of the whole address, without the brackets and
	// comments around it.
	Start, End int
}

// Parse reads exactly one mailbox in any of the forms of RFC 5322 §3.4: a@b,
// <a@b>, Name <a@b>, a@b (comment), with quoted local parts, domain literals and
// UTF-8 (RFC 6532). A bare name gets an empty Domain, and of a source route only
// the last hop is kept (RFC 5321 §4.1.1.3). An empty path is an error, and so
// are CR, LF and other controls, wherever they are.
func Parse(s string) (Address, error) {
	if err := checkText(s, false); err != nil {
		return Address{}, err
	}
	p := scanner{s: s}
	if err := p.run(); err != nil {
		return Address{}, err
	}
	if len(p.boxes) != 1 || p.list {
		return Address{}, refuse(s, "want one address: user@domain")
	}
	return p.boxes[0].Address, nil
}

// ParsePath reads a reverse-path as -f takes it: as Parse does, but "" and "<>"
// are the null reverse-path (RFC 5321 §4.5.5).
func ParsePath(s string) (Address, error) {
	switch strings.Trim(s, " \t") {
	case "", "<>":
		return Address{}, nil
	}
	return Parse(s)
}

// ParseList reads an address-list as callers write it: RFC 5322 §3.4 with the
// obsolete forms of §4.4, empty elements, folded lines (CRLF and a blank), and
// ";" or blanks where commas should stand between bare addresses. Groups give
// their members. A list may name nobody and then gives none. It is all or
// nothing: the error shows the text of the first element that is no address.
// Time and memory are linear in s, and nothing is recursive.
func ParseList(s string) ([]Address, error) {
	boxes, err := Scan(s)
	if err != nil || len(boxes) == 0 {
		return nil, err
	}
	list := make([]Address, len(boxes))
	for i, b := range boxes {
		list[i] = b.Address
	}
	return list, nil
}

// Scan is ParseList with the places of the addresses in s.
func Scan(s string) ([]Mailbox, error) {
	if err := checkText(s, true); err != nil {
		return nil, err
	}
	p := scanner{s: s}
	if err := p.run(); err != nil {
		return nil, err
	}
	return p.boxes, nil
}

// scanner goes over s once, from left to right, and never back.
type scanner struct {
	s     string
	pos   int
	steps int // octets looked at; a test holds it linear in len(s)
	boxes []Mailbox

	list      bool // a separator or a group was seen
	inGroup   bool
	groupAt   int // where the group's name begins
	groupMark int // len(boxes) there
}

func (p *scanner) run() error {
	for {
		if err := p.skip(); err != nil {
			return err
		}
		switch p.peek() {
		case 0:
			// A group cut off before its first member is what is left of
			// "undisclosed-recipients:;" in many messages.
			if p.inGroup && len(p.boxes) > p.groupMark {
				return p.refuse(p.groupAt, `a group without ";" at its end`)
			}
			return nil
		case ';':
			p.inGroup = false
			fallthrough
		case ',':
			p.list = true
			p.pos++
		default:
			if err := p.element(); err != nil {
				return err
			}
		}
	}
}

// element reads up to the next separator. Until it has seen whether "<" or ":"
// follows, words may be a display name as well as addresses: they are taken as
// addresses and given up if they turn out to be a name.
func (p *scanner) element() error {
	start, mark := p.pos, len(p.boxes)
	var wrong error // why the words are not addresses
	for {
		switch p.peek() {
		case 0, ',', ';':
			if wrong == nil {
				wrong = p.checkWords(start, mark)
			}
			return wrong
		case '<':
			p.boxes = p.boxes[:mark]
			return p.angle()
		case ':':
			if p.inGroup || p.pos == start {
				return p.refuse(start, `an unexpected ":"`)
			}
			p.boxes = p.boxes[:mark]
			p.list, p.inGroup, p.groupAt, p.groupMark = true, true, start, mark
			p.pos++
			return nil
		case '>', ')':
			return p.refuse(start, "unbalanced brackets")
		}
		if err := p.word(&wrong); err != nil {
			return err
		}
	}
}

// checkWords refuses an element such as "bob@example.net Bob": where some words
// have a domain and others have none, the others are more likely a name.
func (p *scanner) checkWords(start, mark int) error {
	bare := 0
	for _, b := range p.boxes[mark:] {
		p.steps++
		if b.Address.Domain == "" {
			bare++
		}
	}
	if n := len(p.boxes) - mark; bare > 0 && bare < n {
		return p.refuse(start, "addresses and other words: separate addresses by commas")
	}
	return nil
}

// word reads one addr-spec, and the comments behind it. What is wrong with it
// as an address goes to *wrong, since it may be part of a display name; the
// error returned is for what cannot be a name either.
func (p *scanner) word(wrong *error) error {
	start := p.pos
	got, err := p.addrSpec()
	if err != nil {
		return err
	}
	if p.pos == start { // "@", "\", "[" or "]": no word begins so
		p.pos++
		got.why = "want user@domain"
		if err := p.skip(); err != nil {
			return err
		}
	}
	if got.why == "" {
		got.why = check(got.box.Address)
	}
	if c := p.peek(); got.why == "" && c != 0 && c != ',' && c != ';' && !p.blankSince(got.end) {
		got.why = "an unexpected character behind the address"
	}
	switch {
	case got.why == "":
		p.boxes = append(p.boxes, got.placed(start))
	case *wrong == nil:
		*wrong = p.refuse(start, got.why)
	}
	return nil
}

// blankSince reports whether the gap between two words has a blank at either
// side; a comment alone, a@b(c)d@e, is too odd to part two addresses.
func (p *scanner) blankSince(end int) bool {
	return end < p.pos && (isBlank(p.s[end]) || p.s[end] == '\r' || isBlank(p.s[p.pos-1]))
}

// angle reads "<" [route ":"] addr-spec ">" and what may follow it.
func (p *scanner) angle() error {
	start := p.pos
	p.pos++
	if err := p.skip(); err != nil {
		return err
	}
	if p.peek() == '@' {
		if err := p.route(start); err != nil {
			return err
		}
	}
	at := p.pos
	got, err := p.addrSpec()
	if err != nil {
		return err
	}
	if got.why == "" {
		got.why = check(got.box.Address)
	}
	if got.why == "" && p.peek() != '>' {
		got.why = `want ">" behind the address`
	}
	if got.why != "" {
		return p.refuse(start, got.why)
	}
	p.boxes = append(p.boxes, got.placed(at))
	p.pos++
	if err := p.skip(); err != nil {
		return err
	}
	switch p.peek() {
	case 0, ',', ';':
		return nil
	}
	return p.refuse(start, `want "," behind ">"`)
}

// route passes over a source route, "@a,@b:". RFC 5321 §4.1.1.3 has it ignored.
func (p *scanner) route(start int) error {
	for {
		switch p.peek() {
		case '@':
			p.pos++
			if err := p.skip(); err != nil {
				return err
			}
			domain, _, err := p.domain()
			if err != nil {
				return err
			}
			if domain == "" || !isLiteral(domain) && checkDomain(domain) != "" {
				return p.refuse(start, "an impossible source route")
			}
		case ',':
			p.pos++
		case ':':
			p.pos++
			return p.skip()
		default:
			return p.refuse(start, "an impossible source route")
		}
		if err := p.skip(); err != nil {
			return err
		}
	}
}
