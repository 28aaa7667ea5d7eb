package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/netutil"

	"postino/delivery/control"
)

const (
	// scrapeTimeout bounds a request for metrics and its answer.
	scrapeTimeout = 30 * time.Second
	// maxScrapeHeader bounds the header section of one, in octets.
	maxScrapeHeader = 16 << 10
	// maxScrapes is how many connections are open at a time: more wait in the kernel, so
	// that whoever may connect cannot use up the descriptors that mail needs.
	maxScrapes = 16
)

// serveMetrics answers GET /metrics on a TCP address, and nothing else. It asks for no
// name and no password: the address says who may come. An empty address is no listener,
// and a runner that was started for the moment has none.
func (svc *service) serveMetrics(ctrl *control.Server) (end func(), err error) {
	address := svc.config.Load().Metrics.Listen
	if address == "" || svc.untilEmpty {
		return func() {}, nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &exitError{status: exUnavailable, err: fmt.Errorf("metrics.listen: %w", err)}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", ctrl.Scrape)
	srv := &http.Server{Handler: mux, ReadTimeout: scrapeTimeout, WriteTimeout: scrapeTimeout, IdleTimeout: scrapeTimeout, MaxHeaderBytes: maxScrapeHeader}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(netutil.LimitListener(l, maxScrapes)) }()
	svc.log.Info("metrics", "listen", l.Addr().String())
	return func() {
		grace, cancel := context.WithTimeout(context.Background(), controlGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			svc.log.Error("metrics", "err", err)
		}
	}, nil
}
