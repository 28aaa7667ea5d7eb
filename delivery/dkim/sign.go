package dkim

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-msgauth/dkim"
)

// maxHead is how large a header section may be, in octets: twice what is taken in.
const maxHead = 2 << 20

// Sign reads a message in CRLF lines and returns the DKIM-Signature fields to put
// before it, one for each key. They are relaxed/relaxed, and cover one more From, To,
// Subject and Date than there are, so that none can be added on top.
func Sign(keys []*Key, content io.Reader) (fields []byte, err error) {
	in := bufio.NewReader(content)
	head, err := readHead(in)
	if err != nil {
		return nil, err
	}
	signers := make([]*dkim.Signer, 0, len(keys))
	defer func() {
		for _, s := range signers {
			s.Close() // again after success: harmless
		}
	}()
	var all []io.Writer
	for _, k := range keys {
		s, err := dkim.NewSigner(&dkim.SignOptions{
			Domain: k.Domain, Selector: k.Selector, Signer: k.signer, HeaderKeys: covered(head),
			HeaderCanonicalization: dkim.CanonicalizationRelaxed, BodyCanonicalization: dkim.CanonicalizationRelaxed,
		})
		if err != nil {
			return nil, err
		}
		signers, all = append(signers, s), append(all, s)
	}
	if _, err := io.Copy(io.MultiWriter(all...), io.MultiReader(bytes.NewReader(head), in)); err != nil {
		return nil, err
	}
	for _, s := range signers {
		if err := s.Close(); err != nil {
			return nil, err
		}
		fields = append(fields, s.Signature()...)
	}
	return fields, nil
}

// readHead reads the header section with the empty line that ends it.
func readHead(in *bufio.Reader) ([]byte, error) {
	var head []byte
	for begins := true; ; {
		line, err := in.ReadSlice('\n')
		head = append(head, line...)
		empty := begins && string(line) == "\r\n"
		begins = err == nil
		switch {
		case err == io.EOF:
			return append(head, "\r\n"...), nil // no body, and so perhaps no empty line
		case err != nil && err != bufio.ErrBufferFull:
			return nil, err
		case len(head) > maxHead:
			return nil, errors.New("the header section is too large to be signed")
		case empty:
			return head, nil
		}
	}
}

// covered are the names for h= (RFC 6376 §5.4): each field that tells something, as
// often as it is there, and those that people see once more.
func covered(head []byte) []string {
	count := make(map[string]int)
	for line := range bytes.Lines(head) {
		if name, _, ok := bytes.Cut(line, []byte(":")); ok && line[0] != ' ' && line[0] != '\t' {
			count[strings.ToLower(strings.TrimRight(string(name), " \t"))]++
		}
	}
	seen := []string{"From", "To", "Subject", "Date"}
	var names []string
	for _, name := range []string{"From", "To", "Subject", "Date", "Cc", "Message-ID", "Reply-To", "Sender", "In-Reply-To", "References",
		"MIME-Version", "Content-Type", "Content-Transfer-Encoding", "Auto-Submitted",
		"List-Id", "List-Unsubscribe", "List-Unsubscribe-Post", "List-Post", "List-Help"} {
		n := count[strings.ToLower(name)]
		if slices.Contains(seen, name) {
			n++
		}
		for range n {
			names = append(names, name)
		}
	}
	return names
}
