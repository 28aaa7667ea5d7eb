package relay

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"postino/config"
	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
	"postino/spool/standstill"
)

// GNU SASL takes our logins by SCRAM-SHA-256-PLUS over the TLS of OpenSSL: both find the
// same binding of the connection, and who has another password is refused.
func TestInteropWithGNUSASL(t *testing.T) {
	for path, pkg := range map[string]string{
		"/usr/bin/python3": "python3", "/usr/lib/python3/dist-packages/OpenSSL": "python3-openssl", "/usr/lib/*/libgsasl.so.18": "libgsasl18",
	} {
		if found, err := filepath.Glob(path); err != nil || len(found) == 0 {
			servertest.Missing(t, "%s is missing: apt-get install %s", path, pkg)
		}
	}
	authority := relaytest.New(t, relaytest.Options{})
	cert, key := authority.ClientCert(t)
	for _, version := range []string{"1.3", "1.2"} {
		t.Run("TLS "+version, func(t *testing.T) {
			server := standstill.Command(t, 4*patience, "/usr/bin/python3", "testdata/scram_server.py", cert, key, version, password)
			server.Stderr = os.Stderr
			out, err := server.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = server.Process.Kill()
				_ = server.Wait() // it was killed
			})
			line, _ := bufio.NewReader(out).ReadString('\n')
			port, err := strconv.Atoi(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			for given, want := range map[config.Secret]want{password: {"2", 250, "dot", ""}, "Zq7-wrong": {"4.7.8", 535, "AUTH", ""}} {
				c := settings(authority, withTLS(config.Implicit), func(c *config.Relay) { c.Port, c.Username, c.Password = port, "u", given })
				want.check(t, newRelay(t, c, patient()).Deliver(t.Context(), one())[0])
			}
		})
	}
}
