package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/netutil"

	"postino/config"
	"postino/delivery/control"
	"postino/spool/warnings"
)

const (
	// scrapeTimeout bounds a request for metrics and its answer.
	scrapeTimeout = time.Minute
	// maxScrapeHeader bounds the header section of one, in octets.
	maxScrapeHeader = 16 << 10
	// maxScrapes is how many connections are open at a time: more wait in the kernel, so
	// that whoever may connect cannot use up the descriptors that mail needs.
	maxScrapes = 16
)

// serveMetrics answers GET /metrics on a TCP address, and nothing else. It asks for no
// user and no password: the address says who may come. An empty address is no listener,
// and a runner that was started for the moment has none.
func (svc *service) serveMetrics(ctrl *control.Server) (end func(), err error) {
	address := svc.config.Load().Metrics.Listen
	if address == "" || svc.untilEmpty {
		return func() {}, nil
	}
	p, err := openPort("metrics.listen", address, svc.log)
	if err != nil {
		return nil, &exitError{status: exUnavailable, err: err}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", ctrl.Scrape)
	srv := &http.Server{Handler: svc.ownNames(mux), ReadTimeout: scrapeTimeout, WriteTimeout: scrapeTimeout, IdleTimeout: scrapeTimeout, MaxHeaderBytes: maxScrapeHeader,
		ErrorLog: warnings.New(svc.log).Logger("metrics")}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- p.serve(ctx, svc.log, func(l *net.TCPListener) error {
			svc.log.Info("metrics", "listen", l.Addr().String())
			return srv.Serve(netutil.LimitListener(l, maxScrapes))
		})
	}()
	return func() {
		grace, cancel := context.WithTimeout(context.Background(), controlGrace)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
		stop()
		if err := <-done; err != nil && !errors.Is(err, http.ErrServerClosed) {
			svc.log.Error("metrics", "err", err)
		}
	}, nil
}

// ownNames passes on requests for this machine. A page in a browser can have its own
// name lead to the loopback, and read what it is answered (DNS rebinding); it cannot
// have the browser ask for another name or for an address.
func (svc *service) ownNames(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !isOwn(r.Host, svc.config.Load()) {
			http.Error(w, "this host has another name: see metrics.names", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// isOwn reports whether a request's host, with or without a port, is an address, or a
// name of this machine: a name to scrape it by, localhost, or its hostname in full or
// the first label of it. There is none in HTTP/1.0, which no browser speaks.
func isOwn(host string, c *config.Config) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	own := strings.ToLower(c.Hostname)
	short, _, _ := strings.Cut(own, ".")
	return host == "localhost" || host == own || host == short || slices.Contains(c.Metrics.Names, host)
}
