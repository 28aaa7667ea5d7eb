package relay

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"postino/spool"
)

const (
	// maxHosts is how many servers are remembered, and forgetAfter how long one is of
	// which nothing was heard or seen. A remembered one costs some hundred octets.
	maxHosts    = 10_000
	forgetAfter = 14 * 24 * time.Hour
	// maxMemory is more than the file of a Memory has, in octets.
	maxMemory = maxHosts << 10
	// closedPort is how many mail exchangers must be out of reach, and none ever
	// reached, for the port to be taken for closed.
	closedPort = 3
)

// Memory is what is known of servers. It outlives configurations and, by Load and
// Save, runners. The zero value knows nothing. It may be used by many goroutines.
type Memory struct {
	mu      sync.Mutex
	hosts   map[string]*Host // guarded by mu: by address and port
	reached bool             // guarded by mu: a mail exchanger has answered, once
	changed bool             // guarded by mu: since Save
}

// Host is what is known of one server: an address of a mail exchanger, or a host of a
// relay.
type Host struct {
	// Name is "mx1.example.org[192.0.2.1]:25" or "smtp.example.net:587"; the former had
	// that name last.
	Name string `json:"host"`
	MX   bool   `json:"mx"` // it is a mail exchanger
	// Failures are attempts in a row that did not come to a session.
	Failures int `json:"failures"`
	// Until: it is left alone until then. Zero: it is not.
	Until time.Time `json:"until,omitzero"`
	// Plaintext: its TLS is taken to be broken until then. Zero: it is not.
	Plaintext time.Time `json:"plaintext_until,omitzero"`
	// Connections are as many as it bears at a time; 0 is as many as are configured.
	Connections int `json:"connections,omitempty"`
	// Succeeded is when it last took a message, Failed when an attempt last came to no
	// session, for the reason that Error says.
	Succeeded time.Time `json:"last_success,omitzero"`
	Failed    time.Time `json:"last_failure,omitzero"`
	Error     string    `json:"last_error,omitempty"`
	// Seen is when it was last tried.
	Seen time.Time `json:"seen"`

	last     spool.Reply // that Error is from; the zero Reply after Load
	answered bool        // it has said something, whatever that was; false after Load
}

// down reports whether the host is to be left alone.
func (h *Host) down(now time.Time) bool { return now.Before(h.Until) && h.Until.Sub(now) < forgetAfter }

// well reports whether there is nothing of importance to remember.
func (h *Host) well() bool { return h.Failures == 0 && h.Plaintext.IsZero() && h.Connections == 0 }

// with has f read or change what is known of a host.
func (m *Memory) with(key string, f func(*Host)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[key]
	if h == nil {
		h = &Host{Name: key}
		if m.hosts == nil {
			m.hosts = make(map[string]*Host)
		}
		if len(m.hosts) >= maxHosts {
			m.makeRoom(time.Now())
		}
		m.hosts[key] = h
	}
	f(h)
	m.reached = m.reached || h.MX && (h.answered || !h.Succeeded.IsZero())
	m.changed = true
}

// makeRoom forgets a tenth: hosts that are well first.
func (m *Memory) makeRoom(now time.Time) {
	m.prune(now)
	for _, wellOnly := range []bool{true, false} {
		for key, h := range m.hosts {
			if len(m.hosts) <= maxHosts*9/10 {
				return
			}
			if !wellOnly || h.well() {
				delete(m.hosts, key)
			}
		}
	}
}

func (m *Memory) prune(now time.Time) {
	for key, h := range m.hosts {
		if now.Sub(h.Seen) > forgetAfter {
			delete(m.hosts, key)
		}
	}
}

// works reports whether a host has taken a message, and no attempt failed since.
func (m *Memory) works(key string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.hosts[key]
	return h != nil && h.Failures == 0 && !h.Succeeded.IsZero()
}

// portClosed reports whether no mail exchanger was ever reached, of several tried.
func (m *Memory) portClosed() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reached {
		return false
	}
	unreached := 0
	for _, h := range m.hosts {
		if h.MX && h.Failures > 0 {
			if unreached++; unreached == closedPort {
				return true
			}
		}
	}
	return false
}

// Hosts are those that are known, by their names.
func (m *Memory) Hosts() []Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.prune(time.Now())
	list := make([]Host, 0, len(m.hosts))
	for _, h := range m.hosts {
		list = append(list, *h)
	}
	slices.SortFunc(list, func(a, b Host) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Forget forgets the hosts with that name, with or without address and port, or all,
// if it is empty, and returns how many.
func (m *Memory) Forget(name string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for key, h := range m.hosts {
		if name == "" || h.is(name) {
			delete(m.hosts, key)
			n++
		}
	}
	m.changed = true
	return n
}

// is reports whether somebody means h by name.
func (h *Host) is(name string) bool {
	name = strings.ToLower(name)
	host := h.Name
	if name == host {
		return true
	}
	if at := strings.LastIndexByte(host, ':'); at > 0 {
		host = host[:at]
	}
	before, addr, _ := strings.Cut(strings.TrimSuffix(host, "]"), "[")
	return name == host || name == before || addr != "" && name == addr
}

// Forgive makes hosts that were down worth a try again: the operator says so.
func (m *Memory) Forgive() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.hosts {
		h.Failures, h.Until = 0, time.Time{}
	}
	m.changed = true
}

// memoryFile is how a Memory rests.
type memoryFile struct {
	Reached bool             `json:"reached"`
	Hosts   map[string]*Host `json:"hosts"`
}

// Load takes in what Save wrote to a file. A file that is missing is an empty one.
func (m *Memory) Load(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxMemory))
	if err != nil {
		return err
	}
	var file memoryFile
	if err := json.Unmarshal(text, &file); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reached = m.reached || file.Reached
	if m.hosts == nil {
		m.hosts = make(map[string]*Host)
	}
	for key, h := range file.Hosts {
		if h != nil && m.hosts[key] == nil && len(m.hosts) < maxHosts {
			h.last = spool.Reply{Status: "4.4.1", Text: spool.CleanText(h.Error), Command: "connect"}
			m.hosts[key] = h
		}
	}
	m.prune(time.Now())
	return nil
}

// Save writes the file, if anything has changed. It is not synced: a file that a power
// cut leaves torn is no loss, and Load says so.
func (m *Memory) Save(path string) error {
	m.mu.Lock()
	if !m.changed {
		m.mu.Unlock()
		return nil
	}
	m.prune(time.Now())
	text, err := json.Marshal(memoryFile{m.reached, m.hosts})
	m.changed = false
	m.mu.Unlock()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect once it has another name
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
