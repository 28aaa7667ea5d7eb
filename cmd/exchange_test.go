package cmd_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"postino/delivery/dns/dnstest"
	"postino/delivery/relay/servertest"
)

// exchange is the Internet as mail sees it, on the loopback: a signed zone, test., in
// Unbound, which validates; Postfix on several addresses; and a policy host.
type exchange struct {
	t        testing.TB
	dir      string
	port     int // of Postfix; Unbound has resolver
	resolver string
	ca       string // file of the authority that the runner is to trust
	keys     map[string]string
	signer   *dnstest.Signer
	unbound  *os.Process

	mu       sync.Mutex
	policies map[string]string // guarded by mu: by domain
}

// The addresses of Postfix. All exchangers have the certificate for all names of the
// zone but the one whose certificate is over; one does not offer STARTTLS, and one has
// another key.
const (
	mxGood, mxPlain, mxExpired, mxOther = "127.14.0.1", "127.14.0.2", "127.14.0.3", "127.14.0.4"
	policyAddr, resolverAddr            = "127.14.0.9", "127.14.0.53"
)

func newExchange(t testing.TB) *exchange {
	t.Helper()
	needsRoot(t)
	needs(t, "postfix", "postfix")
	needs(t, "unbound", "unbound")
	dir, err := os.MkdirTemp("", "postino-exchange")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	x := &exchange{t: t, dir: dir, port: servertest.FreePort(t), signer: dnstest.NewSigner(t, "test."), policies: make(map[string]string), keys: make(map[string]string)}
	x.resolver = net.JoinHostPort(resolverAddr, strconv.Itoa(servertest.FreePort(t)))
	policyCert := x.certify()
	x.startPostfix()
	x.servePolicies(policyCert)
	return x
}

// write makes a file that everybody may read.
func (x *exchange) write(name, text string) string {
	x.t.Helper()
	return servertest.Write(x.t, x.dir, name, text)
}

// certify makes an authority and its certificates, in the files that Postfix reads,
// and returns the one of the policy host.
func (x *exchange) certify() tls.Certificate {
	x.t.Helper()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-72 * time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootKey := newKey(x.t)
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		x.t.Fatal(err)
	}
	x.ca = x.write("ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})))
	x.keys["ca"] = digest(rootDER)
	issue := func(name string, ends time.Time) tls.Certificate {
		key := newKey(x.t)
		leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: ends,
			DNSNames: []string{"*.test", "mta-sts.sts.test", "mta-sts.strange.test", "mta-sts.over.test", "mta-sts.bare.test", "mta-sts.testing.test"}}
		der, err := x509.CreateCertificate(rand.Reader, leaf, root, key.Public(), rootKey)
		if err != nil {
			x.t.Fatal(err)
		}
		info, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			x.t.Fatal(err)
		}
		x.keys[name] = digest(info)
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			x.t.Fatal(err)
		}
		x.write(name+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))+
			string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: rootDER})))
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	issue("expired", time.Now().Add(-24*time.Hour))
	issue("other", time.Now().Add(time.Hour))
	return issue("good", time.Now().Add(time.Hour))
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// digest is what TLSA records of matching type 1 hold.
func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// tlsa is a record of a host's.
func (x *exchange) tlsa(host, record string) string {
	return fmt.Sprintf("_%d._tcp.%s. 0 TLSA %s", x.port, host, record)
}

// startPostfix starts Postfix, which takes mail for box at any domain of the zone.
func (x *exchange) startPostfix() {
	x.t.Helper()
	listeners := fmt.Sprintf(`%[1]s:%[5]d inet n - n - - smtpd
%[2]s:%[5]d inet n - n - - smtpd -o smtpd_tls_security_level=none
%[3]s:%[5]d inet n - n - - smtpd -o smtpd_tls_chain_files=%[6]s/expired.pem
%[4]s:%[5]d inet n - n - - smtpd -o smtpd_tls_chain_files=%[6]s/other.pem
`, mxGood, mxPlain, mxExpired, mxOther, x.port, x.dir)
	x.write("domains", "/\\.test$/ ok\n")
	servertest.Postfix(x.t, x.dir, listeners, fmt.Sprintf(`mynetworks = 127.0.0.0/8
virtual_mailbox_domains = regexp:%[1]s/domains
virtual_mailbox_maps = static:box/
smtpd_tls_security_level = may
smtpd_tls_chain_files = %[1]s/good.pem
`, x.dir), func() bool { return servertest.Listens("tcp", net.JoinHostPort(mxOther, strconv.Itoa(x.port))) })
}

// names has the DNS say that, with signatures that do not fit for the broken ones.
func (x *exchange) names(rows []string, broken ...string) {
	x.t.Helper()
	zone := x.write("zone", x.signer.Sign(rows, broken...))
	host, port, _ := net.SplitHostPort(x.resolver)
	conf := x.write("unbound.conf", fmt.Sprintf(`server:
  interface: %[1]s
  port: %[2]s
  access-control: 127.0.0.0/8 allow
  do-daemonize: no
  use-syslog: no
  username: ""
  chroot: ""
  directory: "%[3]s"
  pidfile: ""
  do-not-query-localhost: no
  module-config: "validator iterator"
  trust-anchor: "%[5]s"
  local-zone: "test." nodefault
  num-threads: 1
remote-control:
  control-enable: no
auth-zone:
  name: "test."
  zonefile: "%[4]s"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
`, host, port, x.dir, zone, strings.ReplaceAll(x.signer.Anchor(), "\t", " ")))
	if x.unbound != nil {
		_ = syscall.Kill(-x.unbound.Pid, syscall.SIGKILL)
	}
	listens := func() bool { return servertest.Listens("tcp", x.resolver) }
	poll(x.t, "the last resolver is gone", func() bool { return !listens() })
	x.unbound = servertest.Daemon(x.t, filepath.Join(x.dir, "unbound.log"), listens, needs(x.t, "unbound", "unbound"), "-d", "-c", conf)
}

// servePolicies starts the policy host of all domains.
func (x *exchange) servePolicies(cert tls.Certificate) {
	x.t.Helper()
	listener, err := tls.Listen("tcp", net.JoinHostPort(policyAddr, "443"), &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		x.t.Fatal(err)
	}
	server := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		text, ok := x.policies[strings.TrimPrefix(r.Host, "mta-sts.")]
		x.mu.Unlock()
		if !ok || r.URL.Path != "/.well-known/mta-sts.txt" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, text)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(listener) // until it is closed
	}()
	x.t.Cleanup(func() {
		server.Close()
		<-ended
	})
}

// policy has the policy host serve a policy for a domain, and returns the records that
// announce it.
func (x *exchange) policy(domain, mode, mx string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	text := "version: STSv1\nmode: " + mode + "\nmx: " + mx + "\nmax_age: 604800\n"
	x.policies[domain] = text
	return []string{
		fmt.Sprintf(`_mta-sts.%s. 0 TXT "v=STSv1; id=%s;"`, domain, digest([]byte(text))[:32]),
		"mta-sts." + domain + ". 0 A " + policyAddr,
	}
}
