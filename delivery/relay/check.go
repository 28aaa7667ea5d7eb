package relay

import (
	"context"
	"sync"

	"postino/spool"
)

// Check connects to each host as Deliver does, as far as where MAIL could follow, and
// leaves. The Reply to each, in the order of the configuration, is of class 2, with
// what it answered to EHLO or AUTH, if mail would be handed to it now; else it is the
// one that mail would wait with. Its TLS is how the connection was protected.
func (r *Relay) Check(ctx context.Context) []spool.Reply {
	replies := make([]spool.Reply, len(r.config.Host))
	text := "ready for mail"
	if r.config.Credentials() {
		text += " after AUTH as " + r.config.Username
	}
	var all sync.WaitGroup
	for at := range replies {
		all.Go(func() {
			replies[at] = blame(r.faults, check(ctx, newPool(r.peer(at), 1, 1, r.config.Rate), text))
		})
	}
	all.Wait()
	return replies
}

func check(ctx context.Context, p *pool, text string) spool.Reply {
	s := &session{pool: p, changed: sync.NewCond(&p.mu), most: 1}
	if refused := s.open(ctx); refused != nil {
		return refused.Reply
	}
	// What it says to this matters to nobody.
	_, _ = s.w.command("QUIT", quitWait)
	s.w.socket.Close()
	return spool.Reply{Code: 250, Status: "2.0.0", Text: text, Host: s.host, Command: "EHLO", TLS: s.tls}
}
