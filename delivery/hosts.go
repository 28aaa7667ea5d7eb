package delivery

import (
	"context"
	"path/filepath"
	"time"

	"postino/delivery/relay"
	"postino/spool"
)

const (
	// HostsFile is where, in the spool directory, it is stored what is known of hosts.
	HostsFile = "hosts.json"
	// rememberInterval is how often it is stored.
	rememberInterval = 5 * time.Minute
)

// remember has what is known of hosts outlive the runner, as far as that can be had
// for little.
func (r *Runner) remember(ctx context.Context, s *spool.Spool) {
	path := filepath.Join(s.Dir(), HostsFile)
	tick := time.NewTicker(rememberInterval)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		if err := r.known.Save(path); err != nil {
			r.log.Warn("what is known of hosts is not stored", "file", path, "err", err)
		}
	}
}

// Host is what is known of a server.
type Host = relay.Host

// Hosts are the servers that something is known of.
func (r *Runner) Hosts() []Host { return r.known.Hosts() }

// StoredHosts are those that the last runner on a spool directory knew of, as far as it
// was stored.
func StoredHosts(dir string) ([]Host, error) {
	var m relay.Memory
	err := m.Load(filepath.Join(dir, HostsFile))
	return m.Hosts(), err
}

// ForgetHost forgets what is known of the hosts with that name or address, of all if
// it is empty, and returns how many there were.
func (r *Runner) ForgetHost(name string) int { return r.known.Forget(name) }
