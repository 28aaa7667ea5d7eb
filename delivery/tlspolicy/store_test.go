package tlspolicy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"postino/delivery/dns"
	"postino/delivery/dns/dnstest"
)

// world is a domain, x.test, its name server and its policy host.
type world struct {
	*Store
	t        *testing.T
	resolver *dns.Resolver
	names    *dnstest.Server
	ca       *issued
	port     string
	barred   netip.Addr // where nothing may connect to

	mu       sync.Mutex
	serve    http.HandlerFunc  // guarded by mu, as all below
	shown    []tls.Certificate // what the policy host shows
	asked    int
	warnings []string
}

const enforce = "version: STSv1\nmode: enforce\nmx: mx.x.test\nmax_age: 604800\n"

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, ca: issue(t, nil, "test authority", time.Now().Add(time.Hour))}
	w.names = dnstest.Serve(t, nil)
	w.record("1")
	var err error
	if w.resolver, err = dns.New(w.names.Addr); err != nil {
		t.Fatal(err)
	}
	host := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.mu.Lock()
		serve := w.serve
		w.asked++
		w.mu.Unlock()
		if r.Host != "mta-sts.x.test" || r.URL.Path != "/.well-known/mta-sts.txt" {
			t.Errorf("asked for %s%s", r.Host, r.URL)
		}
		serve(rw, r)
	}))
	host.Config.ErrorLog = log.New(io.Discard, "", 0)
	host.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		return &tls.Config{Certificates: w.shown}, nil
	}}
	host.StartTLS()
	t.Cleanup(host.Close)
	w.show(w.ca, "mta-sts.x.test", time.Now().Add(time.Hour))
	w.says(enforce)
	_, w.port, _ = net.SplitHostPort(host.Listener.Addr().String())
	w.restart("")
	return w
}

// restart is a new run, whose policies rest in dir.
func (w *world) restart(dir string) {
	w.t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(w.ca.Certificate)
	w.Store = &Store{fetcher: fetcher{roots: roots, port: w.port, connect: fetchTime}}
	w.Warn = func(domain string, err error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.warnings = append(w.warnings, domain+": "+err.Error())
	}
	if dir == "" {
		return
	}
	if err := w.Open(dir); err != nil {
		w.t.Fatal(err)
	}
}

// record has the domain announce a policy of that ID; an empty one is none.
func (w *world) record(id string) {
	zone := dnstest.Zone{"x.test. MX": {"x.test. 0 MX 1 mx.x.test."}, "mta-sts.x.test. A": {"mta-sts.x.test. 0 A 127.0.0.1"}}
	if id != "" {
		zone["_mta-sts.x.test. TXT"] = []string{`_mta-sts.x.test. 0 TXT "v=STSv1; id=` + id + `;"`}
	}
	w.names.Set(zone)
}

func (w *world) does(serve http.HandlerFunc) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.serve = serve
}

// says has the policy host serve that text.
func (w *world) says(text string) {
	w.does(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(rw, text)
	})
}

// show has the policy host show another certificate.
func (w *world) show(by *issued, name string, ends time.Time) {
	c := issue(w.t, by, name, ends)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shown = []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: c.key}}
}

// may is to which addresses we may connect.
func (w *world) may(addr netip.Addr) bool { return addr != w.barred }

func (w *world) find() (Policy, error) {
	return w.Find(context.Background(), w.resolver, w.may, "x.test")
}

func (w *world) is(what string, want Mode) {
	w.t.Helper()
	if got, err := w.find(); got.Mode != want || err != nil {
		w.t.Errorf("%s: %+v, %v, want mode %q; warnings: %q", what, got, err, want, w.warnings)
	}
}

// ago moves what was done for the domain into the past.
func (w *world) ago(d time.Duration) {
	k := w.known("x.test", false)
	k.fetched, k.used = k.fetched.Add(-d), k.used.Add(-d)
	if !k.failed.IsZero() {
		k.failed = k.failed.Add(-d)
	}
}

// The DNS of a stranger does not have us connect where strangers have no business.
func TestPolicyHostIsNoPlaceOfOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.barred = netip.MustParseAddr("127.0.0.1")
	w.is("on the loopback", "")
	if w.asked != 0 || len(w.warnings) != 1 || !strings.Contains(w.warnings[0], "no address that a policy host may have") {
		t.Errorf("asked %d times, warnings: %q", w.asked, w.warnings)
	}
}

// A policy is asked for once as long as its ID stays and it is fresh.
func TestPolicyIsFetchedOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 3 {
		w.is("at first", Enforce)
	}
	if w.asked != 1 {
		t.Errorf("asked %d times", w.asked)
	}
	w.says(strings.Replace(enforce, "enforce", "testing", 1))
	w.is("the host alone says something new", Enforce)
	w.record("2")
	w.is("and so does the record", Testing)
	w.says(strings.Replace(enforce, "enforce", "none", 1))
	w.ago(freshTime)
	w.is("not fresh any more", None)
	if w.asked != 3 {
		t.Errorf("asked %d times, want 3", w.asked)
	}
	w.record("")
	w.restart("")
	w.is("no record, nothing known", "")
	if w.asked != 3 {
		t.Errorf("asked without a record")
	}
}

// What is no proof of a policy is none: the domain has no policy then, or the one that
// it had.
func TestLyingHostHasNoPowerOverAPolicy(t *testing.T) {
	t.Parallel()
	weak := strings.Replace(enforce, "enforce", "none", 1)
	serve := func(status int, kind, text string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Type", kind)
			rw.WriteHeader(status)
			fmt.Fprint(rw, text)
		}
	}
	later := time.Now().Add(time.Hour)
	for name, lie := range map[string]func(*world){
		"not found":   func(w *world) { w.does(serve(404, "text/plain", weak)) },
		"no content":  func(w *world) { w.does(serve(203, "text/plain", weak)) },
		"a page":      func(w *world) { w.does(serve(200, "text/html", weak)) },
		"no policy":   func(w *world) { w.says("moved") },
		"too long":    func(w *world) { w.says(weak + strings.Repeat("x: y\n", maxPolicy)) },
		"cut":         func(w *world) { w.does(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }) },
		"another's":   func(w *world) { w.says(weak); w.show(w.ca, "elsewhere.test", later) },
		"expired":     func(w *world) { w.says(weak); w.show(w.ca, "mta-sts.x.test", time.Now().Add(-time.Minute)) },
		"self-signed": func(w *world) { w.says(weak); w.show(nil, "mta-sts.x.test", later) },
		"a redirection": func(w *world) {
			w.does(func(rw http.ResponseWriter, r *http.Request) {
				http.Redirect(rw, r, "/.well-known/mta-sts.txt", http.StatusFound)
			})
		},
		"nobody listens": func(w *world) { w.fetcher.port = "1" },
		"without an host": func(w *world) {
			w.names.Set(dnstest.Zone{"_mta-sts.x.test. TXT": {`_mta-sts.x.test. 0 TXT "v=STSv1; id=3;"`}})
		},
		"no record": func(w *world) { w.says(weak); w.names.Set(nil) },
		"no answer": func(w *world) { w.says(weak); w.names.Set(dnstest.Zone{"_mta-sts.x.test. TXT": {"SERVFAIL"}}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			lie(w)
			w.is("at first", "")
			before := w.asked
			w.is("again", "")
			if w.asked != before {
				t.Errorf("asked again at once")
			}
			if kinds := strings.HasPrefix(name, "no record") || strings.HasPrefix(name, "no answer"); (len(w.warnings) == 1) == kinds {
				t.Errorf("warnings: %q", w.warnings)
			}
		})
		t.Run(name+", later", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.restart(filepath.Join(t.TempDir(), "policies"))
			w.is("honest", Enforce)
			w.record("2")
			lie(w)
			w.is("lied to", Enforce)
			w.restart(w.dir)
			lie(w)
			w.is("after a restart", Enforce)
			w.ago(604800*time.Second - time.Minute)
			w.is("to its end", Enforce)
			w.ago(time.Hour)
			w.is("and no longer", "")
		})
	}
}

// A host that did not serve a policy is asked again after a while.
func TestHostThatFailsIsAskedAgainLater(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.says("")
	w.is("fails", "")
	w.says(enforce)
	w.is("at once", "")
	w.ago(fetchPause)
	w.is("later", Enforce)
	// So is one whose policy holds, while it holds.
	w.says("")
	w.ago(freshTime)
	w.is("fails again", Enforce)
	w.ago(fetchPause)
	w.says(strings.Replace(enforce, "enforce", "testing", 1))
	w.is("comes back", Testing)
}

// Policies of domains that get mail now and then are fetched again without any.
func TestPoliciesAreRefreshedAhead(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.is("at first", Enforce)
	w.Refresh(context.Background(), w.resolver, w.may)
	if w.asked != 1 {
		t.Errorf("a fresh one is fetched again")
	}
	w.ago(freshTime)
	w.Refresh(context.Background(), w.resolver, w.may)
	if k := w.known("x.test", false); w.asked != 2 || time.Since(k.fetched) > time.Hour || k.id != "1" {
		t.Errorf("asked %d times, %+v", w.asked, k)
	}
	w.ago(freshTime)
	w.known("x.test", false).used = time.Now().Add(-unusedTime)
	w.Refresh(context.Background(), w.resolver, w.may)
	if w.asked != 2 {
		t.Errorf("one that nobody uses is fetched again")
	}
}

// Many that want a policy at a time fetch it once, and none waits longer than it may.
func TestManyWaitForOneFetch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	answer := make(chan struct{})
	w.does(func(rw http.ResponseWriter, _ *http.Request) {
		<-answer
		rw.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(rw, enforce)
	})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() { w.is("one of many", Enforce) })
	}
	short, cancel := context.WithCancel(context.Background())
	cancel()
	if p, err := w.Find(short, w.resolver, w.may, "x.test"); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v, though that is not known", p, err)
	}
	close(answer)
	all.Wait()
	if w.asked != 1 {
		t.Errorf("asked %d times", w.asked)
	}
}

// Whatever is in the directory, what is whole there is used.
func TestDirectoryIsNotTrusted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	w := newWorld(t)
	w.restart(dir)
	w.is("at first", Enforce)
	text, err := os.ReadFile(filepath.Join(dir, "x.test"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"over.test": strings.NewReplacer("x.test", "over.test", fmt.Sprint(time.Now().UTC().Year(), "-"), "1999-").Replace(string(text)),
		"y.test":    string(text), "z.test": "", "cut.test": string(text[:40]), ".new-1": "x",
		"weak.test": strings.ReplaceAll(strings.Replace(string(text), "x.test", "weak.test", 1), "max_age", "age"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := new(Store)
	if err := s.Open(dir); err == nil || strings.Count(err.Error(), "\n") != 3 {
		t.Errorf("%v, want four problems", err)
	}
	if len(s.policies) != 1 || s.policies["x.test"].policy.Mode != Enforce || s.policies["x.test"].id != "1" {
		t.Errorf("%+v", s.policies)
	}
	for _, name := range []string{".new-1", "over.test"} {
		if _, err := os.Stat(filepath.Join(dir, name)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s, half written or over, stays: %v", name, err)
		}
	}
}

// A stranger's many domains do not fill memory or disk, and what holds no more goes
// first.
func TestPoliciesAreBounded(t *testing.T) {
	t.Parallel()
	s := &Store{dir: t.TempDir()}
	now := time.Now()
	for i := range maxKept + 50 {
		k := newKept(fmt.Sprintf("d%d.test", i))
		k.policy, k.fetched, k.used = Policy{Enforce, time.Hour, []string{"mx.test"}}, now, now.Add(time.Duration(i)*time.Second)
		if i == 7 {
			k.fetched = now.Add(-2 * time.Hour)
		}
		s.mu.Lock()
		s.put(k)
		s.mu.Unlock()
		if i < 10 {
			if err := s.save(k); err != nil {
				t.Fatal(err)
			}
		}
	}
	left, _ := os.ReadDir(s.dir)
	if _, first := s.policies["d0.test"]; len(s.policies) > maxKept || first || len(left) != 0 {
		t.Errorf("%d policies, the oldest one %v, %d files", len(s.policies), first, len(left))
	}
}

// Both families of a policy host have a turn, and it has no more addresses than that.
func TestFamiliesOfAPolicyHostAlternate(t *testing.T) {
	t.Parallel()
	parse := func(text string) (list []netip.Addr) {
		for _, word := range strings.Fields(text) {
			list = append(list, netip.MustParseAddr(word))
		}
		return list
	}
	for _, tt := range []struct{ in, want string }{
		{"", ""}, {"::1", "::1"}, {"::1 192.0.2.1", "::1 192.0.2.1"}, {"::1 ::2 ::3 192.0.2.1 192.0.2.2", "::1 192.0.2.1 ::2 ::3"}, {"192.0.2.1 192.0.2.2", "192.0.2.1 192.0.2.2"},
	} {
		if got := alternate(parse(tt.in)); fmt.Sprint(got) != fmt.Sprint(parse(tt.want)) {
			t.Errorf("%s: %v, want %s", tt.in, got, tt.want)
		}
	}
}
