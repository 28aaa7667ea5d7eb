package dkim

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

// verify returns an error for each signature in a message that does not hold.
func verify(t *testing.T, keys []*Key, message []byte) (results []error) {
	t.Helper()
	list, err := dkim.VerifyWithOptions(bytes.NewReader(message), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
		for _, k := range keys {
			if k.Name() == name {
				record, err := k.Record()
				return []string{record}, err
			}
		}
		return nil, errors.New("no such record")
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range list {
		results = append(results, v.Err)
	}
	return results
}

func testKeys(t *testing.T) []*Key {
	t.Helper()
	var keys []*Key
	for _, kind := range []string{"rsa", "ed25519"} {
		key, file, err := Generate("example.org", kind, kind)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), kind)
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		loaded, err := Load("example.org", kind, path)
		if err != nil {
			t.Fatal(err)
		}
		a, errA := key.Record()
		b, errB := loaded.Record()
		if errA != nil || errB != nil || a != b {
			t.Fatalf("%s: the key that was read is another: %v, %v", kind, errA, errB)
		}
		keys = append(keys, loaded)
	}
	return keys
}

const head = "From: ann@example.org\r\nTo: bob@example.net\r\nSubject: hi\r\nDate: Mon, 2 Nov 2026 10:00:00 +0000\r\n"

// Whatever is signed verifies, with every kind of key.
func TestSignaturesHold(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	for name, message := range map[string]string{
		"plain":          head + "\r\nhello\r\n",
		"no body":        head,
		"empty body":     head + "\r\n",
		"8-bit":          "X: \xfc\r\n" + head + "\r\nh\xe4llo\r\n",
		"long lines":     "X: " + strings.Repeat("x ", 5000) + "\r\n" + head + "\r\n" + strings.Repeat("y", 100_000) + "\r\n",
		"long line ends": "X: " + strings.Repeat("x", 4096-3) + "\r\n" + head + "\r\nhello\r\n",
		"folded":         "Cc: a@example.net,\r\n\tb@example.net\r\n" + head + "\r\n  spaces \t here  \r\n\r\n\r\n",
		"signed before":  "DKIM-Signature: v=1; a=rsa-sha256; d=list.test; s=l; h=from; bh=AAAA; b=AAAA\r\n" + head + "\r\nhello\r\n",
		"no last line":   head + "\r\nhello",
		"report":         "From: MAILER-DAEMON@example.org\r\nAuto-Submitted: auto-replied\r\nContent-Type: multipart/report; boundary=x\r\n\r\n--x\r\n\r\n--x--\r\n",
	} {
		fields, err := Sign(keys, strings.NewReader(message))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !strings.Contains(message, "\r\n\r\n") {
			message += "\r\n" // for the verifier; the signature is the same
		}
		results := verify(t, keys, append(fields, message...))
		for i, err := range results[:len(keys)] {
			if err != nil {
				t.Errorf("%s: signature %d: %v", name, i, err)
			}
		}
	}
}

// What people see cannot be changed, nor another of it put on top.
func TestSignaturesCoverWhatPeopleSee(t *testing.T) {
	t.Parallel()
	keys := testKeys(t)
	message := head + "\r\nhello\r\n"
	fields, err := Sign(keys, strings.NewReader(message))
	if err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"a second From":    "From: eve@example.com\r\n" + string(fields) + message,
		"a second Subject": string(fields) + "Subject: other\r\n" + message,
		"another To":       strings.Replace(string(fields)+message, "bob@", "eve@", 1),
		"another body":     strings.Replace(string(fields)+message, "hello", "hallo", 1),
		"a reply address":  string(fields) + message,
	} {
		want := name != "a reply address"
		for i, err := range verify(t, keys, []byte(changed)) {
			if (err != nil) != want {
				t.Errorf("%s: signature %d: %v", name, i, err)
			}
		}
	}
}

func TestKeysForADomain(t *testing.T) {
	t.Parallel()
	keys := []*Key{{Domain: "example.org", Selector: "a"}, {Domain: "Example.org", Selector: "b"}, {Domain: "web.example.org", Selector: "c"}}
	for domain, want := range map[string]string{
		"example.org": "ab", "EXAMPLE.ORG": "ab", "web.example.org": "c", "x.web.example.org": "c", "mail.example.org": "ab",
		"org": "", "example.com": "", "": "", "notexample.org": "",
	} {
		got := ""
		for _, k := range ForDomain(keys, domain) {
			got += k.Selector
		}
		if got != want {
			t.Errorf("%s: %q, want %q", domain, got, want)
		}
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	t.Parallel()
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(short)})
	for name, tt := range map[string]struct {
		data []byte
		want string
	}{
		"PKCS #1":   {pkcs1, ""},
		"empty":     {nil, "not a key in PEM"},
		"garbage":   {[]byte("secret garbage"), "not a key in PEM"},
		"wrong DER": {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}), "not a private key"},
		"public":    {pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("secret")}), "not a private key"},
	} {
		path := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(path, tt.data, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load("example.org", "s", path)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
	if _, err := Load("example.org", "s", filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if _, _, err := Generate("example.org", "s", "dsa"); err == nil {
		t.Error("a key of another kind")
	}
}
