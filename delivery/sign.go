package delivery

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/mail"
	"os"
	"strings"
	"sync"

	"postino/config"
	"postino/delivery/dkim"
	"postino/spool"
)

// keyring has the DKIM keys of a configuration, read anew when their files change. A
// key that cannot be read makes mail of its domain wait, and no other.
type keyring struct {
	keys []config.DKIM

	mu     sync.Mutex
	loaded map[string]loadedKey // guarded by mu: by file
}

type loadedKey struct {
	key  *dkim.Key
	info fs.FileInfo
}

// forDomain returns the keys for mail from a domain.
func (r *keyring) forDomain(domain string) ([]*dkim.Key, error) {
	var named []*dkim.Key
	files := make(map[*dkim.Key]string)
	for _, k := range r.keys {
		key := &dkim.Key{Domain: k.Domain, Selector: k.Selector}
		named, files[key] = append(named, key), k.KeyFile
	}
	named = dkim.ForDomain(named, domain)
	for i, k := range named {
		var err error
		if named[i], err = r.load(k.Domain, k.Selector, files[k]); err != nil {
			return nil, err
		}
	}
	return named, nil
}

func (r *keyring) load(domain, selector, path string) (*dkim.Key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	id := domain + " " + selector + " " + path
	if l, ok := r.loaded[id]; ok && os.SameFile(l.info, info) && l.info.ModTime().Equal(info.ModTime()) {
		return l.key, nil
	}
	key, err := dkim.Load(domain, selector, path)
	if err != nil {
		return nil, err
	}
	if r.loaded == nil {
		r.loaded = make(map[string]loadedKey)
	}
	r.loaded[id] = loadedKey{key, info}
	return key, nil
}

// sign puts signatures before the content of a batch, if there are keys for its
// author's domain. The reply says why that failed; then nothing must be sent.
func (p *plan) sign(b *spool.Batch) (why spool.Reply, ok bool) {
	keys, err := p.keys.forDomain(authorDomain(b.Message))
	if err == nil && len(keys) == 0 {
		return why, true
	}
	var fields []byte
	if err == nil {
		fields, err = signature(keys, b.Open)
	}
	if err != nil {
		return spool.Reply{Status: "4.3.5", Text: spool.CleanText(fmt.Sprintf("DKIM: %v: mail waits until that is mended", err)), Command: "sign"}, false
	}
	m := *b.Message
	m.Size += int64(len(fields))
	open := b.Open
	b.Message = &m
	b.Open = func() (io.ReadCloser, error) {
		content, err := open()
		if err != nil {
			return nil, err
		}
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(fields), content), content}, nil
	}
	return why, true
}

func signature(keys []*dkim.Key, open func() (io.ReadCloser, error)) ([]byte, error) {
	content, err := open()
	if err != nil {
		return nil, err
	}
	defer content.Close()
	return dkim.Sign(keys, content)
}

// authorDomain is the domain in From, which DMARC looks at (RFC 7489 §3.1), or, where
// that cannot be read, that of the reverse-path.
func authorDomain(m *spool.Message) string {
	if list, err := mail.ParseAddressList(m.From); err == nil && len(list) > 0 {
		return list[0].Address[strings.LastIndexByte(list[0].Address, '@')+1:]
	}
	return m.Sender.Domain
}
