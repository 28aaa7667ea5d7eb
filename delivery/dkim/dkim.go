// Package dkim signs messages (RFC 6376, RFC 8463) and makes the keys for it.
package dkim

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
)

const (
	// maxKeyFile is the largest key file, in octets: RSA of 16384 bits has 13 KiB.
	maxKeyFile = 64 << 10
	// minRSA is the shortest RSA key, in bits, that verifiers must take for good
	// (RFC 8301 §3.2), and newRSA the length of those made here: longer ones do not fit
	// into one string of a TXT record, and some DNS panels take no more.
	minRSA = 1024
	newRSA = 2048
)

// Key is a private key and where its public part is published.
type Key struct {
	// Domain is d=, Selector is s=: the record is at Selector._domainkey.Domain.
	Domain, Selector string
	signer           crypto.Signer
}

// Load reads a private key, RSA or Ed25519, as PEM in PKCS #8 or PKCS #1. Errors
// never hold a part of it.
func Load(domain, selector, path string) (*Key, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return nil, err
	}
	signer, err := parseKey(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Key{domain, selector, signer}, nil
}

func parseKey(data []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New(`not a key in PEM: "postino dkim keygen" makes one`)
	}
	var key any
	var err error
	if block.Type == "RSA PRIVATE KEY" {
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	} else {
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	if err != nil {
		return nil, fmt.Errorf("not a private key in PKCS #8 or PKCS #1 (%s)", block.Type)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		if key.N.BitLen() < minRSA {
			return nil, fmt.Errorf("an RSA key of %d bits, want %d at least", key.N.BitLen(), minRSA)
		}
		return key, nil
	case ed25519.PrivateKey:
		return key, nil
	}
	return nil, errors.New("neither an RSA nor an Ed25519 key")
}

// Generate makes a key of a kind, "rsa" or "ed25519", and returns it with its file.
func Generate(domain, selector, kind string) (*Key, []byte, error) {
	var signer crypto.Signer
	var err error
	switch kind {
	case "rsa":
		signer, err = rsa.GenerateKey(rand.Reader, newRSA)
	case "ed25519":
		_, signer, err = ed25519.GenerateKey(rand.Reader)
	default:
		return nil, nil, fmt.Errorf("%q is not a kind of key: write rsa or ed25519", kind)
	}
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(signer)
	if err != nil {
		return nil, nil, err
	}
	return &Key{domain, selector, signer}, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// Name is where the public key is published.
func (k *Key) Name() string { return k.Selector + "._domainkey." + k.Domain }

// Record is the text of the TXT record there (RFC 6376 §3.6.1, RFC 8463 §4).
func (k *Key) Record() (string, error) {
	switch public := k.signer.Public().(type) {
	case ed25519.PublicKey:
		return "v=DKIM1; k=ed25519; p=" + base64.StdEncoding.EncodeToString(public), nil
	case *rsa.PublicKey:
		der, err := x509.MarshalPKIXPublicKey(public)
		return "v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(der), err
	}
	return "", errors.New("neither an RSA nor an Ed25519 key")
}

// ForDomain returns the keys to sign mail from a domain with: those for it, else
// those for the nearest domain above it, which DMARC takes for aligned (RFC 7489
// §3.1.1).
func ForDomain(keys []*Key, domain string) []*Key {
	for domain != "" {
		found := slices.DeleteFunc(slices.Clone(keys), func(k *Key) bool { return !strings.EqualFold(k.Domain, domain) })
		if len(found) > 0 {
			return found
		}
		_, domain, _ = strings.Cut(domain, ".")
	}
	return nil
}
