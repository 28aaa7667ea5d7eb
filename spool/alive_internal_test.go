package spool

import (
	"context"
	"errors"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// A writer in the middle of a change that does not end is not alive; before and after
// it is.
func TestStuckWriterIsNotAlive(t *testing.T) {
	s, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Alive(t.Context()); err != nil {
		t.Errorf("idle: %v", err)
	}
	begun, end, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.update(func(*bolt.Tx) error { close(begun); <-end; return nil }, nil)
	}()
	<-begun
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Alive(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stuck: %v, want that nobody answers", err)
	}
	close(end)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := s.Alive(t.Context()); err != nil {
		t.Errorf("after it: %v", err)
	}
}
