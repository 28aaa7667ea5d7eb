// Package relay delivers by SMTP and LMTP: to configured relay hosts (Relay), to the
// mail exchangers of domains (MX) and to mail stores (LMTP). It keeps connections,
// protects them, says who we are and tells for each recipient what the server
// answered. Nothing it meets is an error of its own; all of it is a [spool.Reply], and
// nothing is logged here.
//
//	Relay, MX, LMTP   Deliver(Batch): which servers to ask, in which order
//	     |
//	   pool           of a peer: the jobs that wait, and its sessions
//	     |
//	  session         a connection, ready for MAIL (RFC 5321 §3.3)
//	  |     |
//	writer reader     commands out, replies in, neither waiting for the other
//	  |     |
//	   wire           lines and replies, over TCP or TLS
//
// A Batch is a message and those of its recipients who have the same next hop. At one
// peer it is a delivery, which may take several jobs, since servers limit the recipients
// of a transaction; a job on its way is a transaction. A transaction is in the session's
// flight from MAIL to the reply to the end of its content. For each command that was
// written, a session has an expectation: the reader takes each reply to be about the
// oldest one (RFC 2920 §3.1), and settles recipients as soon as a reply decides. What
// ends a session is a fault; then bury settles the rest, and knows whom the server may
// have got the message for.
//
// Where to read on:
//
//	relay.go mx.go lmtp.go    which servers, and when the next one
//	exchangers.go demand.go   finding exchangers, and what TLS with them must come to
//	host.go fault.go          what is remembered of a server; what is the operator's
//	pool.go job.go depth.go   who sends what, how many at a time, how far ahead
//	fit.go envelope.go        who can go in one transaction; MAIL and RCPT
//	peer.go open.go ehlo.go tls.go auth.go sasl.go binding.go check.go    to MAIL
//	session.go writer.go data.go reader.go words.go bury.go    from MAIL to QUIT
//	wire.go reply.go content.go    replies and content as octets
//
// All of a pool and its sessions is guarded by the pool's mutex. It is a large package
// because its parts would otherwise have to show each other the state of a connection.
package relay
