package delivery_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/spool"
	"postino/spool/spooltest"
)

// A disk that is full for a day costs nothing: mail is attempted all the while and
// each outcome recorded, new mail is refused, and with room again all goes on by
// itself.
func TestFullDiskForADay(t *testing.T) {
	dir := t.TempDir()
	spooltest.Mount(t, dir, "tmpfs", 0, "size=64m")
	synctest.Test(t, func(t *testing.T) {
		c := settings(nil, func(c *config.Config) {
			c.Routes = []config.Route{{Recipients: []string{"*"}, Transport: config.Transport{
				Kind: config.ViaError, Code: 451, Status: "4.3.0", Text: "later",
			}}}
			c.Retry.First, c.Retry.Max = config.Duration(5*time.Minute), config.Duration(4*time.Hour)
		})
		runner, err := delivery.New(c, slog.New(slog.NewTextHandler(io.Discard, nil)))
		if err != nil {
			t.Fatal(err)
		}
		s := spooltest.Open(t, dir, spool.Options{Queued: runner.Queued})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- runner.Run(ctx, s) }()

		var ids []spool.ID
		for range 50 {
			ids = append(ids, spooltest.Put(t, s, content, "a@x.test"))
		}
		free := spooltest.Fill(t, dir)
		refused := 0
		for range 24 {
			time.Sleep(time.Hour)
			d, err := s.NewDraft(0)
			if err == nil { // what is free inside the file may do for a small one
				d.Discard()
			} else if refused++; !errors.Is(err, spool.ErrNoSpace) {
				t.Error(err)
			}
		}
		attempts := 0
		for _, id := range ids {
			list, err := s.Attempts(id)
			if err != nil {
				t.Fatal(err)
			}
			attempts += len(list)
		}
		if attempts < 10*len(ids) || refused == 0 {
			t.Errorf("%d attempts of %d messages recorded in a day, %d new ones refused", attempts, len(ids), refused)
		}

		free()
		time.Sleep(time.Minute)
		ids = append(ids, spooltest.Put(t, s, content, "a@x.test"))
		c = settings(nil, func(c *config.Config) { c.Mode = config.Capture })
		if err := runner.SetConfig(c); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, id := range ids {
			if m, err := s.Message(id); err != nil || m.Recipients[0].Status != spool.Delivered {
				t.Fatalf("%s after the day: %+v, %v", id, m, err)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		runner.Close()
	})
}
