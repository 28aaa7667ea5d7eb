package control_test

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"testing"

	"postino/delivery/control"
)

// BenchmarkSteer is what it costs to steer a long queue: POSTINO_QUEUE is how many
// messages it has.
func BenchmarkSteer(b *testing.B) {
	n, err := strconv.Atoi(os.Getenv("POSTINO_QUEUE"))
	if err != nil {
		n = 2000
	}
	w := newWorld(b, control.Options{Owner: os.Geteuid()})
	var wg sync.WaitGroup
	for i := range 256 {
		wg.Go(func() {
			for j := i; j < n; j += 256 {
				w.add(b, 33, fmt.Sprint(j), nil)
			}
		})
	}
	wg.Wait()
	for _, tt := range []struct {
		name string
		do   func() int
	}{
		{"list by sender", func() int { return count(b, w.client.Queue(b.Context(), control.Selection{From: "@sender.test"})) }},
		{"hold", func() int { return count(b, w.client.Steer(b.Context(), control.Hold, control.Selection{})) }},
		{"release", func() int { return count(b, w.client.Steer(b.Context(), control.Release, control.Selection{})) }},
		{"delete", func() int { return count(b, w.client.Steer(b.Context(), control.Delete, control.Selection{})) }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			for range b.N { // once: the second time there is nothing to do
				if got := tt.do(); b.N == 1 && got != n {
					b.Errorf("%d messages, want %d", got, n)
				}
			}
		})
	}
}

func count(b *testing.B, list func(func(control.Message, error) bool)) int {
	n := 0
	for _, err := range list {
		if err != nil {
			b.Fatal(err)
		}
		n++
	}
	return n
}
