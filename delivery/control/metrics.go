package control

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"postino/spool"
)

// Metrics counts what the runner's log tells, in the text format that Prometheus
// scrapes. No address is a label, and next hops are those of the configuration, so that
// there are some hundred time series. Make it with NewMetrics.
type Metrics struct {
	mu      sync.Mutex
	counts  map[string]map[string]float64    // guarded by mu: by name and labels
	spreads map[string]map[string]*histogram // guarded by mu: likewise
	success time.Time                        // guarded by mu: of the last recipient that was relayed or delivered
}

// family is a metric as its readers know it.
type family struct{ name, kind, help string }

// counters are the families that events add to, histograms those that sort times.
func counters() []family {
	return []family{
		{"postino_accepted_total", "counter", "Messages stored, by the way they came."},
		{"postino_accepted_bytes_total", "counter", "Octets of messages stored."},
		{"postino_attempts_total", "counter", "What attempts did to recipients, by next hop, status and the first two numbers of the enhanced status."},
		{"postino_reports_total", "counter", "Delivery reports queued, by what they say."},
		{"postino_digests_total", "counter", "Mails that took the place of several reports."},
		{"postino_finished_total", "counter", "Messages with nothing left to do."},
		{"postino_log_total", "counter", "Lines of log that are warnings or errors."},
	}
}

func histograms() []family {
	return []family{
		{"postino_attempt_seconds", "histogram", "How long attempts took, by next hop."},
		{"postino_delivery_seconds", "histogram", "How old mail was when it was relayed or delivered, by next hop."},
	}
}

// bounds are those of the histograms, in seconds: from a fast relay to days of retries.
var bounds = [...]float64{0.05, 0.25, 1, 5, 30, 300, 3600, 21600, 86400}

type histogram struct {
	buckets [len(bounds)]uint64 // not yet summed up
	sum     float64
	count   uint64
}

// NewMetrics returns Metrics that counted nothing yet.
func NewMetrics() *Metrics {
	return &Metrics{counts: make(map[string]map[string]float64), spreads: make(map[string]map[string]*histogram)}
}

// Handler passes everything on to next, and counts it.
func (m *Metrics) Handler(next slog.Handler) slog.Handler { return Tee(next, m.take) }

func (m *Metrics) take(e Entry) {
	at := func(key string) string {
		for _, a := range e.Attrs {
			if a.Key == key {
				return a.Value.String()
			}
		}
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Level >= slog.LevelWarn {
		m.add("postino_log_total", labels("level", strings.ToLower(e.Level.String())), 1)
	}
	switch e.Msg {
	case "accepted":
		size, _ := strconv.ParseFloat(at("size"), 64)
		m.add("postino_accepted_total", labels("via", at("via")), 1)
		m.add("postino_accepted_bytes_total", "", size)
	case "attempt":
		m.attempt(e.Time, at)
	case "report":
		m.add("postino_reports_total", labels("action", at("action")), 1)
	case "digest":
		m.add("postino_digests_total", "", 1)
	case "finished":
		m.add("postino_finished_total", "", 1)
	}
}

func (m *Metrics) attempt(when time.Time, at func(string) string) {
	hop, status := hopLabel(at("hop")), at("status")
	m.add("postino_attempts_total", labels("hop", hop, "status", status, "reason", reasonLabel(at("reply"))), 1)
	m.observe("postino_attempt_seconds", labels("hop", hop), at("took"))
	if status == string(spool.Relayed) || status == string(spool.Delivered) {
		m.observe("postino_delivery_seconds", labels("hop", hop), at("age"))
		m.success = when
	}
}

// hopLabel is a next hop without what mail brings into its name.
func hopLabel(hop string) string {
	if kind, _, _ := strings.Cut(hop, " "); kind == "mx" || strings.HasPrefix(kind, "error:") {
		kind, _, _ = strings.Cut(kind, ":")
		return kind
	}
	return hop
}

// reasonLabel is class and subject of the enhanced status in a reply.
func reasonLabel(reply string) string {
	for word := range strings.FieldsSeq(reply) {
		parts := strings.Split(word, ".")
		if len(parts) == 3 && len(parts[0]) == 1 && len(parts[1]) == 1 {
			return parts[0] + "." + parts[1]
		}
	}
	return ""
}

// labels is pairs of names and values as they are written.
func labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, "%s=%q", pairs[i], strings.Map(func(c rune) rune {
			if c < ' ' || c > '~' {
				return '?'
			}
			return c
		}, pairs[i+1]))
	}
	return b.String()
}

// maxSeries bounds what one family can grow to, should a log tell more than it should.
const maxSeries = 2000

// add is called with mu held, as observe is.
func (m *Metrics) add(name, labels string, n float64) {
	series := m.counts[name]
	if series == nil {
		series = make(map[string]float64)
		m.counts[name] = series
	}
	if _, known := series[labels]; known || len(series) < maxSeries {
		series[labels] += n
	}
}

func (m *Metrics) observe(name, labels, length string) {
	d, err := time.ParseDuration(length)
	if err != nil {
		return
	}
	series := m.spreads[name]
	if series == nil {
		series = make(map[string]*histogram)
		m.spreads[name] = series
	}
	h := series[labels]
	if h == nil {
		if len(series) == maxSeries {
			return
		}
		h = new(histogram)
		series[labels] = h
	}
	seconds := d.Seconds()
	h.sum, h.count = h.sum+seconds, h.count+1
	if i, _ := slices.BinarySearch(bounds[:], seconds); i < len(bounds) {
		h.buckets[i]++
	}
}

// write writes the families that events made.
func (m *Metrics) write(w *bytes.Buffer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range counters() {
		f.begin(w)
		for _, l := range slices.Sorted(maps.Keys(m.counts[f.name])) {
			sample(w, f.name, l, m.counts[f.name][l])
		}
	}
	for _, f := range histograms() {
		f.begin(w)
		for _, l := range slices.Sorted(maps.Keys(m.spreads[f.name])) {
			m.spreads[f.name][l].write(w, f.name, l)
		}
	}
	if !m.success.IsZero() {
		gauge(w, "postino_last_success_timestamp_seconds", "When a recipient was last relayed or delivered.", float64(m.success.UnixMilli())/1000)
	}
}

func (h *histogram) write(w *bytes.Buffer, name, labels string) {
	sum := uint64(0)
	for i, bound := range bounds {
		sum += h.buckets[i]
		sample(w, name+"_bucket", labels+`,le="`+strconv.FormatFloat(bound, 'g', -1, 64)+`"`, float64(sum))
	}
	sample(w, name+"_bucket", labels+`,le="+Inf"`, float64(h.count))
	sample(w, name+"_sum", labels, h.sum)
	sample(w, name+"_count", labels, float64(h.count))
}

func (f family) begin(w *bytes.Buffer) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
}

func sample(w *bytes.Buffer, name, labels string, value float64) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	fmt.Fprintf(w, "%s%s %s\n", name, labels, strconv.FormatFloat(value, 'g', -1, 64))
}

func gauge(w *bytes.Buffer, name, help string, value float64) {
	family{name, "gauge", help}.begin(w)
	sample(w, name, "", value)
}

// writeQueue writes what the spool has now.
func (s *Server) writeQueue(w *bytes.Buffer) {
	queue := family{"postino_queue_messages", "gauge", "Messages of the queue: held, deferred, or queued and not attempted yet."}
	counts := map[string]float64{StatusHeld: 0, string(spool.Deferred): 0, StatusQueued: 0}
	oldest := time.Now()
	for e, err := range s.o.Spool.Schedule() {
		if err != nil {
			continue // such a record is in the log
		}
		oldest = minTime(oldest, e.ID.Time())
		switch {
		case e.Held:
			counts[StatusHeld]++
		case !e.Next.IsZero():
			counts[string(spool.Deferred)]++
		default:
			counts[StatusQueued]++
		}
	}
	queue.begin(w)
	for _, state := range slices.Sorted(maps.Keys(counts)) {
		sample(w, queue.name, labels("state", state), counts[state])
	}
	gauge(w, "postino_queue_oldest_seconds", "Age of the oldest message of the queue.", time.Since(oldest).Seconds())
	gauge(w, "postino_failed_bytes", "Octets of content in the failed list, about.", float64(s.o.Runner.FailedOctets()))
	gauge(w, "postino_spool_bytes", "Size of the spool file.", float64(s.o.Spool.FileSize()))
	room := 1.0
	if s.o.Spool.Room() != nil {
		room = 0
	}
	gauge(w, "postino_spool_has_room", "1 while new mail is taken, 0 while the disk is full.", room)
	info := family{"postino_info", "gauge", "Version and mode of the runner."}
	info.begin(w)
	mode := ""
	if s.o.Mode != nil {
		mode = s.o.Mode()
	}
	sample(w, info.name, labels("version", s.o.Version, "mode", mode), 1)
	gauge(w, "postino_start_timestamp_seconds", "When the runner started.", float64(s.o.Started.UnixMilli())/1000)
}

func minTime(a, b time.Time) time.Time {
	if cmp.Compare(a.UnixNano(), b.UnixNano()) <= 0 {
		return a
	}
	return b
}

// Scrape answers GET with all metrics; it is what a listener of its own serves.
func (s *Server) Scrape(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	s.o.Metrics.write(&b)
	s.writeQueue(&b)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // who has gone does not mind
}

func (s *Server) metrics(w http.ResponseWriter, r *request) error {
	s.Scrape(w, r.Request)
	return nil
}

// maxMetrics bounds what a client reads, in octets.
const maxMetrics = 16 << 20

// Metrics is what Scrape says.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	resp, err := c.do(ctx, http.MethodGet, "/metrics")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(io.LimitReader(resp.Body, maxMetrics))
}
