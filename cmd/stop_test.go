package cmd_test

import (
	"strings"
	"testing"
)

// stop returns when the runner's process is gone, and says so when there is none; a user
// who has no say in the runner does not end it.
func TestStopEndsTheRunner(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	b := newBox(t, "mode = \"hold\"\n")
	b.giveTo(spoolUID)
	r := b.start()
	if got := b.run(as(nobodyUID, b.command("", program("postino"), "stop"))); got.code != 77 {
		t.Errorf("a stranger's stop: %+v, want 77", got)
	}
	pid := r.cmd.Process.Pid
	if got := b.postino("stop"); got != "" {
		t.Errorf("stop says %q", got)
	}
	if b.holder() != 0 || alive(pid) {
		t.Error("the runner is there after stop")
	}
	if code := r.wait(); code != 0 {
		t.Errorf("the runner ended with %d", code)
	}
	if got := b.run(b.command("", program("postino"), "stop")); got.code != 69 || !strings.Contains(got.err, "not running") {
		t.Errorf("nobody there: %+v, want 69", got)
	}
}

// impostor listens on control.sock and says that the runner is a process of its choice.
const impostor = `
cat >/tmp/impostor.py <<'end'
import http.server, os, socketserver, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def address_string(self): return ""
    def do_GET(self):
        text = b'{"pid": %s, "version": "1", "mode": "hold"}\n' % sys.argv[1].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(text))); self.end_headers(); self.wfile.write(text)
    def do_POST(self):
        self.do_GET(); self.wfile.flush(); os._exit(0)
socketserver.UnixStreamServer(os.environ["POSTINO_SPOOL"] + "/control.sock", Answer).serve_forever()
end
impostor() { # PID
	rm -f /var/spool/postino/control.sock
	POSTINO_SPOOL=/var/spool/postino setpriv --reuid=postino --regid=postino --clear-groups python3 /tmp/impostor.py $1 2>/dev/null &
	await sh -c "postino status | grep 'as pid $1 '"
}
`

// A process that somebody names on control.sock, with the rights to be believed, is not
// ended for it by the scripts that run as root.
func TestNobodyNamesAProcessToEnd(t *testing.T) {
	t.Parallel()
	needs(t, "python3", "python3")
	out, _ := newMachine(t).run(held, sent+awaited+impostor+`
cd /src
./install.sh --binaries /bin.new --service none >/dev/null
postino stop
sleep 600 & innocent=$!
for script in "./install.sh --binaries /bin.new" "sh config/system/package/postinst configure 1" "sh config/system/package/prerm remove" "./install.sh --uninstall"; do
	impostor $innocent
	$script >/tmp/said 2>&1 || cat /tmp/said
	readlink /proc/$innocent/exe >/dev/null || echo "$script: ended it"
	[ ! -x /usr/local/lib/postino/postino ] || postino stop || : # none after prerm
done
kill $innocent
`)
	if strings.Contains(out, "ended it") {
		t.Error(out)
	}
}
