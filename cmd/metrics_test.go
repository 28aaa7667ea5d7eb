package cmd_test

import (
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"postino/delivery/relay/relaytest"
	"postino/delivery/relay/servertest"
)

// A program that knows the text format reads the metrics, by HTTP and by command, and
// they tell what happened and nobody's address.
func TestPrometheusReadsTheMetrics(t *testing.T) {
	t.Parallel()
	python := needs(t, "python3", "python3")
	if exec.Command(python, "-c", "import prometheus_client").Run() != nil {
		servertest.Missing(t, "no parser of metrics: apt-get install python3-prometheus-client")
	}
	s, b := plainRelay(t, relaytest.Rule{At: "RCPT", Arg: "<no@", Reply: "550 5.1.1 no"}, relaytest.Rule{At: "RCPT", Arg: "<late@", Reply: "451 4.2.1 later"})
	const address = "127.0.0.7:19154"
	b.configure(relayTo(s.Port()) + "[metrics]\nlisten = \"" + address + "\"\n")
	b.start()
	for _, to := range []string{"one@x.test", "no@x.test", "late@x.test"} {
		b.sendmail("Subject: x\n\nhi\n", "-f", "ann@sender.test", to)
	}
	b.log.awaitN(t, 3, "msg=finished") // of the report as well
	b.log.await(t, "rcpt=late@x.test", "status=deferred")
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%v, %v", resp, err)
	}
	for i, text := range []string{string(text), b.postino("stats", "--prometheus")} {
		cmd := exec.Command(python, "-c", `
import sys
from prometheus_client.parser import text_string_to_metric_families
for f in text_string_to_metric_families(sys.stdin.read()):
    assert f.documentation and f.type in ("counter", "gauge", "histogram"), f
    for s in f.samples: print(s.name, sorted((k, v) for k, v in s.labels.items() if k != "hop"), s.value)
`)
		cmd.Stdin = strings.NewReader(text)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s\nof\n%s", err, out, text)
		}
		for _, want := range []string{
			`postino_accepted_total [('via', 'socket')] 3.0`,
			`postino_attempts_total [('reason', '5.1'), ('status', 'failed')] 1.0`,
			`postino_attempts_total [('reason', '4.2'), ('status', 'deferred')] 1.0`,
			`postino_attempts_total [('reason', '2.0'), ('status', 'relayed')] 2.0`,
			`postino_reports_total [('action', 'failed')] 1.0`,
			`postino_delivery_seconds_count [] 2.0`,
			`postino_delivery_seconds_bucket [('le', '+Inf')] 2.0`,
			`postino_queue_messages [('state', 'deferred')] 1.0`,
			`postino_queue_messages [('state', 'held')] 0.0`,
			`postino_spool_has_room [] 1.0`,
		} {
			if !strings.Contains("\n"+string(out), "\n"+want+"\n") {
				t.Errorf("%d: no %q in\n%s", i, want, out)
			}
		}
		if found := regexp.MustCompile(`\S+@\S+|x\.test|sender\.test`).FindString(text); found != "" {
			t.Errorf("%d: there is %q in\n%s", i, found, text)
		}
	}
	if promtool, err := exec.LookPath("promtool"); err == nil {
		cmd := exec.Command(promtool, "check", "metrics")
		cmd.Stdin = strings.NewReader(string(text))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool: %v\n%s", err, out)
		}
	}
	if resp, err := client.Get("http://" + address + "/status"); err != nil || resp.StatusCode != 404 {
		t.Errorf("there is more than metrics: %v, %v", resp, err)
	}
}
