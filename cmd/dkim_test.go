package cmd_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/emersion/go-msgauth/dkim"
)

// From no key to a signature that holds, as an administrator does it; and back: a key
// that is gone makes mail wait.
func TestMailIsSigned(t *testing.T) {
	t.Parallel()
	s, b := plainRelay(t)
	file := filepath.Join(b.dir, "s1.pem")
	var record struct{ Name, Type, Value string }
	if err := json.Unmarshal([]byte(b.postino("dkim", "keygen", "--json", "web.test", "s1", file)), &record); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
	if again := b.run(b.command("", program("postino"), "dkim", "keygen", "web.test", "s1", file)); again.code != 73 || again.out != "" {
		t.Errorf("a key is overwritten: %+v", again)
	}
	b.configure(relayTo(s.Port()) + "[[dkim]]\ndomain = \"web.test\"\nselector = \"s1\"\nkey_file = \"" + file + "\"\n")
	if out := b.postino("dkim", "record"); !strings.Contains(out, "s1._domainkey.web.test") || !strings.Contains(out, record.Value) {
		t.Errorf("dkim record says\n%s\nwant %+v", out, record)
	}
	b.start()
	b.sendmail("From: me@web.test\nSubject: signed\n\nhello\n", "-f", "me@web.test", "alice@example.org")
	b.sendmail("From: me@other.test\nSubject: not signed\n\nhello\n", "-f", "me@web.test", "alice@example.org")
	b.log.awaitN(t, 2, "msg=finished")
	for subject, want := range map[string]int{"signed": 1, "not signed": 0} {
		results, err := dkim.VerifyWithOptions(bytes.NewReader(messageWith(t, s, subject).Data), &dkim.VerifyOptions{LookupTXT: func(name string) ([]string, error) {
			if name != record.Name {
				return nil, errors.New("no such record")
			}
			return []string{record.Value}, nil
		}})
		if err != nil || len(results) != want || want > 0 && results[0].Err != nil {
			t.Errorf("%s: %d signatures, %v, want %d that hold", subject, len(results), err, want)
		}
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b.sendmail("From: me@web.test\nSubject: waits\n\nhello\n", "-f", "me@web.test", "alice@example.org")
	b.log.await(t, "msg=attempt", "status=deferred", "4.3.5", "DKIM")
}
