package oauth

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"postino/config"
)

const (
	// maxFile is more than any record has, in octets.
	maxFile = 4 * maxToken
	// lockPoll is how often a lock that another process has is tried again.
	lockPoll = 50 * time.Millisecond
)

// record is how a token rests: a file for each account, which only its owner can read.
// The first three say whose it is, for people.
type record struct {
	Username string    `json:"username"`
	ClientID string    `json:"client_id"`
	TokenURL string    `json:"token_url"`
	Access   string    `json:"access_token"`
	Refresh  string    `json:"refresh_token"`
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires,omitzero"`
}

// key names the account of r: several routes may share one, and have several. What may
// be done with a token is a part of that.
func key(r *config.Relay) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{r.OAuth.TokenURL, r.OAuth.ClientID, r.OAuth.Scope, r.Username}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

func (s *Store) path(r *config.Relay) string { return filepath.Join(s.dir, key(r)+".json") }

// stamp tells one state of a file from another.
type stamp struct {
	inode uint64
	time  time.Time
}

// load reads the token of an account. What is missing is ErrLogin.
func load(path string) (Token, stamp, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return Token{}, stamp{}, ErrLogin
	}
	if err != nil {
		return Token{}, stamp{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Token{}, stamp{}, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Token{}, stamp{}, err
	}
	var r record
	if json.Unmarshal(text, &r) != nil || !isToken(r.Access) || r.Refresh != "" && !isToken(r.Refresh) {
		return Token{}, stampOf(info), fmt.Errorf("%s is damaged: %w", path, ErrLogin)
	}
	return Token{Access: config.Secret(r.Access), Refresh: config.Secret(r.Refresh), Issued: r.Issued, Expires: r.Expires}, stampOf(info), nil
}

func stampOf(info fs.FileInfo) stamp {
	s := stamp{time: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// draft is a file that a token is going to be written to.
type draft struct{ *os.File }

// prepare makes one, with the room that any token needs: a refresh token that is to
// be replaced is worth nothing to us once its successor cannot be stored.
func (s *Store) prepare(r *config.Relay) (*draft, error) {
	f, err := os.OpenFile(s.path(r)+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(make([]byte, maxFile))
	if err = errors.Join(err, f.Sync()); err != nil {
		f.Close()
		return nil, errors.Join(err, os.Remove(f.Name()))
	}
	return &draft{f}, nil
}

// discard removes a draft that nothing became of.
func (d *draft) discard() {
	d.Close()
	_ = os.Remove(d.Name()) // the next one takes its place
}

// save gives a draft its content and the name of the account's file, so that after a
// crash there is the old token or the new one. It has returned before anybody uses the
// new one.
func (s *Store) save(d *draft, r *config.Relay, t Token) (stamp, error) {
	text, err := json.Marshal(record{r.Username, r.OAuth.ClientID, r.OAuth.TokenURL, t.Access.Reveal(), t.Refresh.Reveal(), t.Issued.UTC(), t.Expires.UTC()})
	if err == nil {
		_, err = d.WriteAt(append(text, '\n'), 0)
	}
	if err == nil {
		err = d.Truncate(int64(len(text) + 1))
	}
	if err == nil {
		err = d.Sync()
	}
	if err != nil {
		return stamp{}, err
	}
	info, err := d.Stat()
	if err == nil {
		err = os.Rename(d.Name(), s.path(r))
	}
	if err != nil {
		return stamp{}, err
	}
	dir, err := os.Open(s.dir)
	if err != nil {
		return stamp{}, err
	}
	return stampOf(info), errors.Join(dir.Sync(), dir.Close())
}

// lock keeps other processes from changing the token of r meanwhile: a login, and the
// runner. Within the process the mutex of the account does.
func (s *Store) lock(ctx context.Context, r *config.Relay) (unlock func(), err error) {
	if err := os.Mkdir(s.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	f, err := os.OpenFile(s.path(r)+".lock", os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("another process has the token: %w", ctx.Err())
		case <-time.After(lockPoll):
		}
	}
}
