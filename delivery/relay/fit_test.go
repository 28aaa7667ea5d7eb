package relay

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// recipients are n of them in one domain.
func recipients(n int) (to []string) {
	for i := range n {
		to = append(to, fmt.Sprintf("r%d@x.test", i+1))
	}
	return to
}

// Limits of the remote split a message into as many transactions as it takes, each
// recipient gets it once, and a limit that never lets anybody through ends in a
// deferral.
func TestRecipientLimits(t *testing.T) {
	everyone := want{"2", 250, "dot", ""}
	for _, tt := range []struct {
		name         string
		offer        []string
		rules        []relaytest.Rule
		to           []string
		want         want
		transactions int
	}{
		{"552 at the eleventh", nil, []relaytest.Rule{{At: "RCPT", N: 11, Reply: "552 too many recipients"}}, recipients(12), everyone, 2},
		{"452 4.5.3 for each after the tenth", nil, each(11, 20, "452 4.5.3 too many"), recipients(20), everyone, 2},
		{"451 4.5.3", nil, []relaytest.Rule{{At: "RCPT", N: 3, Reply: "451 4.5.3 enough"}}, recipients(3), everyone, 2},
		{"one domain at a time", nil, []relaytest.Rule{{At: "RCPT", N: 2, Reply: "451 4.3.0 Multiple destination domains per transaction is unsupported. Try again."}},
			[]string{"a@x.test", "b@y.test"}, everyone, 2},
		{"RCPTMAX", []string{"LIMITS RCPTMAX=3"}, nil, recipients(10), everyone, 4},
		{"RCPTMAX in lower case, beside others", []string{"limits foo=1 mailmax=50 rcptmax=5"}, nil, recipients(10), everyone, 2},
		{"RCPTMAX of nonsense", []string{"LIMITS RCPTMAX=0 RCPTMAX=-1 RCPTMAX=x"}, nil, recipients(10), everyone, 1},
		{"RCPTDOMAINMAX", []string{"LIMITS RCPTDOMAINMAX=1"}, nil, []string{"a@x.test", "b@y.test", "c@X.TEST", "d@z.test"}, everyone, 3},
		{"what every server takes", nil, nil, recipients(250), everyone, 3},
		{"none at all", nil, []relaytest.Rule{{At: "RCPT", Reply: "452 4.5.3 too many"}}, recipients(2), want{"4.5.3", 452, "RCPT", ""}, 1},
		{"mailbox full is no limit", nil, []relaytest.Rule{{At: "RCPT", Reply: "452 4.2.2 over quota"}}, recipients(2), want{"4.2.2", 452, "RCPT", ""}, 1},
	} {
		for name, offer := range offers {
			t.Run(tt.name+", "+name, func(t *testing.T) {
				server := relaytest.New(t, relaytest.Options{Extensions: append(slices.Clone(tt.offer), offer...), Rules: tt.rules})
				r := newRelay(t, settings(server, single), patient())
				for _, reply := range r.Deliver(t.Context(), batch(hello, tt.to...)) {
					tt.want.check(t, reply)
				}
				got := map[string]int{}
				for _, m := range server.Messages() {
					for _, to := range m.To {
						got[to]++
					}
				}
				for _, to := range tt.to {
					if n := got[to]; n != 1 && tt.want == everyone || n > 1 {
						t.Errorf("%s got it %d times", to, n)
					}
				}
				n := 0
				for _, line := range server.Commands() {
					if strings.HasPrefix(line, "MAIL") {
						n++
					}
				}
				if n != tt.transactions {
					t.Errorf("%d transactions, want %d", n, tt.transactions)
				}
			})
		}
	}
}

// each refuses the nth to the mth RCPT.
func each(n, m int, reply string) (rules []relaytest.Rule) {
	for ; n <= m; n++ {
		rules = append(rules, relaytest.Rule{At: "RCPT", N: n, Reply: reply})
	}
	return rules
}

// Only the recipients that need SMTPUTF8 fail for want of it.
func TestUTF8IsByRecipient(t *testing.T) {
	for _, offer := range [][]string{{"8BITMIME"}, {"8BITMIME", "SMTPUTF8"}} {
		server := relaytest.New(t, relaytest.Options{Extensions: offer})
		b := batch(hello, "grün@x.test", "a@bücher.test")
		b.Message.UTF8 = true
		replies := newRelay(t, settings(server), patient()).Deliver(t.Context(), b)
		want{"2", 250, "dot", ""}.check(t, replies[1])
		said(t, server, `^RCPT TO:<a@xn--bcher-kva\.test>$`)
		if len(offer) == 1 {
			want{"5.6.7", 0, "RCPT", "SMTPUTF8"}.check(t, replies[0])
			never(t, server, "SMTPUTF8")
		} else {
			want{"2", 250, "dot", ""}.check(t, replies[0])
			said(t, server, "^MAIL .* SMTPUTF8$")
		}
	}
	// The header section needs it: nobody can have the message.
	server := relaytest.New(t, relaytest.Options{})
	b := batch("Subject: grün\r\n\r\nhello\r\n", "a@x.test")
	b.Message.UTF8, b.Message.EightBit = true, true
	want{"5.6.7", 0, "MAIL", "header"}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
	// Octets above 127 in the body are no reason.
	b = batch("Subject: x\r\n\r\ngrün\r\n", "a@x.test")
	b.Message.UTF8, b.Message.EightBit = true, true
	want{"2", 250, "dot", ""}.check(t, newRelay(t, settings(server), patient()).Deliver(t.Context(), b)[0])
}
