package cmd_test

import (
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
)

// What reads Postfix's log reads ours: pflogsumm counts what happened.
func TestPflogsummReadsTheLog(t *testing.T) {
	t.Parallel()
	summary := needs(t, "pflogsumm", "pflogsumm")
	s, b := plainRelay(t,
		relaytest.Rule{At: "RCPT", Arg: "<no@", Reply: "550 5.1.1 no such user"},
		relaytest.Rule{At: "RCPT", Arg: "<late@", Reply: "451 4.2.1 later"})
	b.configure(relayTo(s.Port()) + "[log]\nformat = \"postfix\"\n")
	b.start()
	for _, to := range []string{"one@x.test", "two@x.test", "no@x.test", "late@x.test"} {
		b.sendmail("Subject: x\n\nhi\n", "-f", "ann@sender.test", to)
	}
	b.log.await(t, "to=<ann@sender.test>", "status=sent") // the report
	b.log.await(t, "to=<late@x.test>", "status=deferred")
	b.log.await(t, "to=<two@x.test>", "status=sent")
	cmd := exec.Command(summary)
	cmd.Stdin = strings.NewReader(b.log.String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{`4   received`, `3   delivered`, `1   deferred  \(1  deferrals\)`, `1   bounced`, `(?m)^ +2 .* x\.test`, `no such user`} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("no %q in\n%s\nof\n%s", want, out, b.log)
		}
	}
}
