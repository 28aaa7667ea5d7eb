package relay

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"postino/config"
	"postino/delivery/tlspolicy"
)

// tls is the TLS configuration for one connection.
func (p *peer) tls() (*tls.Config, error) {
	roots, err := loadRoots(p.caFile)
	if err != nil {
		return nil, err
	}
	t := &tls.Config{
		ServerName: strings.TrimSuffix(p.host, "."),
		RootCAs:    roots,
		MinVersion: uint16(p.tlsMin), // zero is crypto/tls's own minimum, 1.2
	}
	if p.certFile != "" {
		ours, err := tls.LoadX509KeyPair(p.certFile, p.keyFile)
		if err != nil {
			return nil, fmt.Errorf("relay.cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{ours}
	}
	if p.pin != "" {
		t.InsecureSkipVerify = true // the pin stands in for name, chain and dates
		t.VerifyConnection = p.pinned
	}
	p.demand.apply(t)
	return t, nil
}

// errPin says that the server has another key than the pinned one.
var errPin = errors.New("relay.tls_pin is of another key: if the relay has a new one that you trust, write the new pin")

// pinned refuses a server that has not the pinned key.
func (p *peer) pinned(state tls.ConnectionState) error {
	sum := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if got := hex.EncodeToString(sum[:]); got != string(p.pin) {
		return fmt.Errorf("its public key has the SHA-256 %s: %w", got, errPin)
	}
	return nil
}

// loadRoots reads the certificates to trust; nil, for an empty path, is the
// system's. It is read for each connection so that a mended file needs no restart.
func loadRoots(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("relay.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("relay.ca_file: %s holds no certificate: write them in PEM", path)
	}
	return roots, nil
}

// startTLS asks for TLS and says EHLO again under it: what was said before is
// forgotten (RFC 3207 §4.2). Under the opportunistic policy a remote that
// declines is spoken to in plaintext.
func (s *session) startTLS(ctx context.Context, policy config.TLSPolicy, t *tls.Config) *refusal {
	a, err := s.w.command("STARTTLS", time.Duration(s.pool.peer.time.Command))
	switch {
	case err != nil:
		return s.failed("STARTTLS", err)
	case a.code != 220:
		if policy == config.Opportunistic && a.code/100 > 3 && a.code != 421 {
			return nil
		}
		return s.refused("STARTTLS", a)
	}
	// Plaintext behind the answer was put there to be read as if it came under
	// TLS. What comes later breaks the handshake.
	if s.w.in.Buffered() > 0 {
		return s.failed("STARTTLS", errUnasked)
	}
	if refused := s.handshake(ctx, t); refused != nil {
		return refused
	}
	return s.hello()
}

// handshake puts TLS over the socket and a new wire over TLS.
func (s *session) handshake(ctx context.Context, t *tls.Config) *refusal {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.pool.peer.time.Command))
	defer cancel()
	conn := tls.Client(s.w.socket, t)
	if err := conn.HandshakeContext(ctx); err != nil {
		var certificate *tls.CertificateVerificationError
		switch {
		case errors.As(err, &certificate), errors.Is(err, errPin), errors.Is(err, tlspolicy.ErrNotAuthentic):
			return &refusal{Reply: s.local("TLS", "4.7.5", "certificate of "+t.ServerName+" not accepted: "+err.Error()+s.pool.peer.demand.because())}
		case lost(err):
			return s.failed("TLS", err)
		}
		return &refusal{Reply: s.local("TLS", "4.7.4", "TLS handshake: "+err.Error())}
	}
	state := conn.ConnectionState()
	s.tls = strings.ReplaceAll(tls.VersionName(state.Version), " ", "")
	switch proof := s.pool.peer.demand.proof; {
	case proof != "":
		s.tls += " " + proof
	case s.pool.peer.pin != "" || verified(state, t):
		s.tls += " verified"
	default:
		s.tls += " unverified"
	}
	s.binding = bindingOf(state)
	s.w = newWire(conn, s.w.socket)
	return nil
}

// verified reports whether the remote proved its name, even if that was not
// demanded.
func verified(state tls.ConnectionState, t *tls.Config) bool {
	if len(state.VerifiedChains) > 0 {
		return true
	}
	if len(state.PeerCertificates) == 0 {
		return false
	}
	intermediates := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{DNSName: t.ServerName, Roots: t.RootCAs, Intermediates: intermediates})
	return err == nil
}
