package relay

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
)

// binding is what both ends of a TLS connection know and nobody between them: a login
// with it is good on this connection alone (RFC 5056). The zero binding is none.
type binding struct {
	kind string // as it is registered
	data []byte
	// offered: the remote has a mechanism for it. That it has none although we could is
	// told to it under the password, so that nobody can have taken the offer away
	// (RFC 5802 §6).
	offered bool
}

// bindingOf is the binding of a connection: under TLS 1.3 tls-exporter (RFC 9266),
// before it tls-unique where it is safe (RFC 5929, RFC 7627), else the certificate of
// the server.
func bindingOf(state tls.ConnectionState) binding {
	if state.Version >= tls.VersionTLS13 {
		data, err := state.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
		if err != nil {
			return binding{}
		}
		return binding{kind: "tls-exporter", data: data}
	}
	if len(state.TLSUnique) > 0 {
		return binding{kind: "tls-unique", data: state.TLSUnique}
	}
	if len(state.PeerCertificates) == 0 {
		return binding{}
	}
	return endPoint(state.PeerCertificates[0])
}

// endPoint is tls-server-end-point: a hash of the certificate, by the one that it is
// signed with, or SHA-256 for those that are older (RFC 5929 §4.1).
func endPoint(c *x509.Certificate) binding {
	h := crypto.SHA256
	switch c.SignatureAlgorithm {
	case x509.SHA384WithRSA, x509.ECDSAWithSHA384, x509.SHA384WithRSAPSS:
		h = crypto.SHA384
	case x509.SHA512WithRSA, x509.ECDSAWithSHA512, x509.SHA512WithRSAPSS:
		h = crypto.SHA512
	case x509.PureEd25519:
		return binding{} // not defined
	}
	sum := h.New()
	sum.Write(c.Raw)
	return binding{kind: "tls-server-end-point", data: sum.Sum(nil)}
}

// header is how the dialogue of a mechanism begins (RFC 5801 §4).
func (b binding) header(mechanism string) string {
	switch {
	case mechanism == scramPlus:
		return "p=" + b.kind + ",,"
	case b.kind != "" && !b.offered:
		return "y,,"
	}
	return "n,,"
}

// proof is what the dialogue of a mechanism shows of the connection (RFC 5802 §7).
func (b binding) proof(mechanism string) []byte {
	if mechanism == scramPlus {
		return append([]byte(b.header(mechanism)), b.data...)
	}
	return []byte(b.header(mechanism))
}
