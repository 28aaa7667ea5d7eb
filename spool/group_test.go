package spool

import (
	"fmt"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"postino/spool/address"
)

// benchMessage is a message of one recipient; a Commit changes it.
func benchMessage() *Message {
	return &Message{
		Arrived: time.Now(), Sender: address.Address{Local: "www-data", Domain: "web1.example.com"},
		Recipients: []Recipient{{Address: address.Address{Local: "bob", Domain: "example.org"}, Status: Queued}},
		Origin:     Origin{Via: ViaSocket, UID: 33}, MessageID: "<06423B2F1C0A5E77.1234abcd@web1.example.com>",
		Subject: "a message", From: "www-data@web1.example.com",
	}
}

func (s *Spool) put(content []byte) error {
	d, err := s.NewDraft(0)
	if err != nil {
		return err
	}
	if _, err := d.Write(content); err != nil {
		return err
	}
	_, err = d.Commit(benchMessage())
	return err
}

// txid is the number of the last transaction.
func (s *Spool) txid(t testing.TB) (id int) {
	t.Helper()
	if err := s.view(func(tx *bolt.Tx) error { id = tx.ID(); return nil }); err != nil {
		t.Fatal(err)
	}
	return id
}

// Many submissions share a transaction, whose two syncs are what they wait for.
// Figures to compare are commits and allocations for each message; times are those
// of the disk.
func BenchmarkCommit(b *testing.B) {
	content := make([]byte, 2<<10)
	for _, writers := range []int{1, 16, 64} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s, err := Open(b.TempDir(), Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			before := s.txid(b)
			b.ReportAllocs()
			b.ResetTimer()
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for n := w; n < b.N; n += writers {
						if err := s.put(content); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			commits := float64(s.txid(b)-before) / float64(b.N)
			b.ReportMetric(commits, "commits/msg")
			b.ReportMetric(2*commits, "fdatasyncs/msg")
		})
	}
}

// Operations that wait share one transaction as long as it stays small: bbolt keeps
// all of it in memory until it is on disk.
func TestGroupIsBoundedInOctets(t *testing.T) {
	s := &Spool{ops: make(chan *op, maxGroup)}
	fill := func(count, size int) {
		for range count {
			s.ops <- &op{size: size}
		}
	}
	const large = 64 << 10
	fill(maxGroup, large)
	for left := maxGroup; left > 0; {
		group := s.group(<-s.ops)
		left -= len(group)
		if got := len(group) * large; got >= maxGroupSize+large || left > 0 && got < maxGroupSize {
			t.Fatalf("a group of %d octets, want %d", got, maxGroupSize)
		}
	}
	fill(maxGroup, 500)
	if n := len(s.group(<-s.ops)); n != maxGroup {
		t.Errorf("%d small operations in a group, want %d", n, maxGroup)
	}
}
