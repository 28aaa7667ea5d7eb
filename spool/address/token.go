package address

import "strings"

// spec is an addr-spec as it was read, before check has seen it.
type spec struct {
	box Mailbox
	end int    // just behind its last token; 0 if there was none
	why string // what is wrong with it; "" if nothing is, so far
}

// addrSpec reads local-part ["@" domain] with the comments and blanks that
// RFC 5322 §4.4 allows around its dots and its "@", and those behind it. It
// consumes nothing if no local part begins here.
func (p *scanner) addrSpec() (spec, error) {
	out, err := p.localPart()
	if err != nil || out.end == 0 || p.peek() != '@' {
		return out, err
	}
	p.pos++
	out.end = p.pos
	if err := p.skip(); err != nil {
		return out, err
	}
	domain, end, err := p.domain()
	if err != nil {
		return out, err
	}
	if domain != "" {
		out.box.Address.Domain, out.end = domain, end
	} else if out.why == "" {
		out.why = `no domain behind "@"`
	}
	return out, nil
}

// placed is the mailbox of an addr-spec that starts at an offset.
func (s spec) placed(start int) Mailbox {
	s.box.Start, s.box.End = start, s.end
	return s.box
}

// localPart reads words joined by dots. Words side by side are left to the next
// call: they are a display name, or addresses separated by blanks.
func (p *scanner) localPart() (spec, error) {
	var out spec
	local, quoted := "", false
	for {
		var piece string
		c := p.peek()
		switch {
		case c == '"':
			var err error
			if piece, err = p.quotedString(); err != nil {
				return out, err
			}
			quoted = true
		case c == '.' || isAtext(c):
			piece = p.atoms()
		default:
			return out, nil
		}
		dot := c != '"' && strings.HasSuffix(piece, ".")
		local = join(local, piece)
		out.box = Mailbox{Address: Address{Local: local}, LocalEnd: p.pos}
		out.end = p.pos
		if err := p.skip(); err != nil {
			return out, err
		}
		next := p.peek()
		if next == '.' || dot && (next == '"' || isAtext(next)) {
			continue
		}
		if !quoted && strings.Trim(local, ".") == "" {
			out.why = "no local part: want user@domain"
		}
		return out, nil
	}
}

// domain reads a domain or an address literal and what separates it from the
// next token. It is "" if neither begins here; whether it is a possible one is
// for check. The second result is the offset just behind it.
func (p *scanner) domain() (string, int, error) {
	if p.peek() == '[' {
		return p.literal()
	}
	domain, end := "", p.pos
	for {
		if c := p.peek(); c != '.' && !isAtext(c) {
			return domain, end, nil
		}
		piece := p.atoms()
		domain, end = join(domain, piece), p.pos
		if err := p.skip(); err != nil {
			return "", 0, err
		}
		if p.peek() != '.' && !strings.HasSuffix(piece, ".") {
			return domain, end, nil
		}
	}
}

func (p *scanner) literal() (string, int, error) {
	start := p.pos
	for p.pos++; isDtext(p.peek()); p.pos++ {
	}
	if p.peek() != ']' || p.pos == start+1 {
		return "", 0, p.refuse(start, "an impossible address literal")
	}
	p.pos++
	end := p.pos
	return p.s[start:end], end, p.skip()
}

// join appends a piece, unless the whole is too long already for check to pass:
// so a million pieces do not cost a million copies.
func join(text, piece string) string {
	if text == "" {
		return piece
	}
	if len(text) > maxPath {
		return text
	}
	return text + piece
}

// atoms passes over atoms and dots.
func (p *scanner) atoms() string {
	start := p.pos
	for c := p.peek(); c == '.' || isAtext(c); c = p.peek() {
		p.pos++
	}
	return p.s[start:p.pos]
}

// quotedString returns what is between the quotes, its quoted pairs resolved and
// its folding removed (RFC 5322 §3.2.4).
func (p *scanner) quotedString() (string, error) {
	start := p.pos
	p.pos++
	from := p.pos
	var b strings.Builder // stays empty for a string without anything to resolve
	for {
		switch c := p.peek(); c {
		case 0:
			return "", p.refuse(start, `a quote without its end`)
		case '"':
			text := p.s[from:p.pos]
			p.pos++
			if b.Len() == 0 {
				return text, nil
			}
			b.WriteString(text)
			return b.String(), nil
		case '\\', '\r', '\n':
			b.WriteString(p.s[from:p.pos])
			p.pos++
			from = p.pos
			if c == '\\' && p.peek() != 0 {
				p.pos++
			}
		default:
			p.pos++
		}
	}
}

// skip passes over blanks, folding and comments. Comments nest, so their depth
// is counted; a call for each would let the caller choose our stack.
func (p *scanner) skip() error {
	depth, start := 0, 0
	for ; ; p.pos++ {
		switch c := p.peek(); {
		case c == '(':
			if depth == 0 {
				start = p.pos
			}
			depth++
		case depth == 0:
			if !isBlank(c) && c != '\r' && c != '\n' {
				return nil
			}
		case c == ')':
			depth--
		case c == 0:
			return p.refuse(start, "a comment without its end")
		case c == '\\' && p.pos+1 < len(p.s):
			p.pos++
		}
	}
}

// peek is the octet at hand, and 0 at the end: checkText leaves no other NUL.
func (p *scanner) peek() byte {
	p.steps++
	if p.pos >= len(p.s) {
		return 0
	}
	return p.s[p.pos]
}

// refuse is the error for the text from start up to the end of its element.
func (p *scanner) refuse(start int, why string) error {
	end := min(max(p.pos, start+1), len(p.s))
	if i := strings.IndexAny(p.s[end:min(len(p.s), end+maxQuoted)], ",;"); i >= 0 {
		end += i
	} else {
		end = len(p.s)
	}
	return refuse(p.s[start:end], why)
}
