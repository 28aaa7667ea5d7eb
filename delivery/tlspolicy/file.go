package tlspolicy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// record is how a policy rests: a file in the directory, named by the domain.
type record struct {
	Domain  string    `json:"domain"`
	ID      string    `json:"id"`
	Fetched time.Time `json:"fetched"`
	Used    time.Time `json:"used"`
	Policy  string    `json:"policy"` // as its host would serve it
}

const (
	// maxFile is more than any record has, in octets: JSON may double a policy.
	maxFile = 4 * maxPolicy
	// newName begins the name of a file that is being written; no domain begins so.
	newName = ".new-"
)

// Open has policies rest in a directory, which is made when there is one, and takes in
// those that are there. Files that are no policy are left out, and named in the error. Call
// it before Find, once.
func (s *Store) Open(dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dir = dir
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var problems []error
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !domainName(e.Name()) {
			problems = append(problems, os.Remove(path)) // half written
			continue
		}
		k, err := load(path, e.Name())
		switch {
		case err != nil:
			problems = append(problems, fmt.Errorf("%s: %w", path, err))
		case k.valid(time.Now()):
			s.put(k)
		default:
			s.remove(k)
		}
	}
	return errors.Join(problems...)
}

// load reads the file of a domain.
func load(path, domain string) (*kept, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return nil, err
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	if r.Domain != domain {
		return nil, fmt.Errorf("it is of %q", r.Domain)
	}
	p, err := ParsePolicy([]byte(r.Policy))
	if err != nil {
		return nil, err
	}
	k := newKept(domain)
	k.id, k.policy, k.fetched, k.used = r.ID, p, r.Fetched, r.Used
	return k, nil
}

// save writes the file of k, so that after a crash there is the old one or the new.
func (s *Store) save(k *kept) error {
	if s.dir == "" {
		return nil
	}
	text, err := json.Marshal(record{k.domain, k.id, k.fetched.UTC(), k.used.UTC(), k.policy.String()})
	if err != nil {
		return err
	}
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	f, err := os.CreateTemp(s.dir, newName)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of no effect once it has another name
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), s.path(k)); err != nil {
		return err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// remove removes the file of k, if there is one. What stays in spite of that is over,
// or is fetched again.
func (s *Store) remove(k *kept) {
	if s.dir == "" {
		return
	}
	if err := os.Remove(s.path(k)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.warn(k.domain, err)
	}
}

func (s *Store) path(k *kept) string { return filepath.Join(s.dir, k.domain) }
