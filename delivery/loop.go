package delivery

import (
	"bufio"
	"context"
	"io"
	"net/textproto"
	"strings"

	"postino/spool"
	"postino/spool/address"
)

// mailbox hands a batch to a transport to mailboxes of this machine, except for those
// recipients whose mailbox has had the message before: something sends it round. Their
// Delivered-To, which final delivery adds, is in the header section.
func (r *route) mailbox(ctx context.Context, b *spool.Batch) []spool.Reply {
	before, err := deliveredTo(b)
	if err != nil || len(before) == 0 {
		return r.transport.Deliver(ctx, b) // which meets the error itself
	}
	replies := make([]spool.Reply, len(b.Recipients))
	fresh := *b
	fresh.Recipients = nil
	var places []int
	for i, n := range b.Recipients {
		if to := b.Message.Recipients[n].Address; before[to.Key()] {
			replies[i] = spool.Reply{Status: "5.4.6", Command: "deliver", Text: "mail loop: it has been delivered to " + spool.CleanText(to.String()) + " before"}
		} else {
			fresh.Recipients, places = append(fresh.Recipients, n), append(places, i)
		}
	}
	if len(places) > 0 {
		for i, reply := range r.transport.Deliver(ctx, &fresh) {
			replies[places[i]] = reply
		}
	}
	return replies
}

// deliveredTo are the addresses in Delivered-To, by Address.Key.
func deliveredTo(b *spool.Batch) (map[string]bool, error) {
	content, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	var keys map[string]bool
	const name = "delivered-to:"
	lines := bufio.NewReader(content)
	for {
		line, prefix, err := lines.ReadLine()
		if err == io.EOF || err == nil && len(line) == 0 && !prefix {
			return keys, nil
		}
		if err != nil {
			return nil, err
		}
		if len(line) > len(name) && strings.EqualFold(string(line[:len(name)]), name) {
			if a, err := address.Parse(textproto.TrimString(string(line[len(name):]))); err == nil {
				if keys == nil {
					keys = make(map[string]bool)
				}
				keys[a.Key()] = true
			}
		}
		for prefix && err == nil {
			_, prefix, err = lines.ReadLine() // the rest of a long line
		}
		if err != nil && err != io.EOF {
			return nil, err
		}
	}
}
