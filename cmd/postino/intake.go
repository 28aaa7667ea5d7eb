package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"

	"postino/spool"
	"postino/spool/submit"
)

// dropsNeedRoom reports whether mail waits in drop/ for a full disk to have room.
func (svc *service) dropsNeedRoom() bool {
	if svc.spool.Room() == nil {
		return false
	}
	waiting, err := submit.DropsWaiting(svc.app.spool)
	return err == nil && waiting
}

// takeIn begins to take submissions. The function it returns ends that; with
// last, it looks into drop/ once more when nobody can reach the socket any more.
func (svc *service) takeIn() (end func(last bool), err error) {
	srv := submit.New(svc.spool, policy(svc.config.Load()), svc.log)
	svc.intake = srv
	ports := slices.Clone(svc.manager.ports)
	if !svc.untilEmpty { // which is not there when programs connect
		for _, address := range svc.config.Load().SMTP.Listen {
			p, err := openPort("smtp.listen", address, svc.log)
			if err != nil {
				closeAll(ports)
				return nil, err
			}
			ports = append(ports, p)
		}
	}
	l := svc.manager.submit
	if l == nil {
		if l, err = listen(svc.app.spool, spool.SubmitSocket); err != nil {
			closeAll(ports)
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2+len(ports))
	for _, p := range ports {
		go func() { done <- p.serve(ctx, svc.log, srv.ServeTCP) }()
	}
	go func() { done <- srv.Serve(l) }()
	go func() { done <- srv.Drops(ctx) }()
	return func(last bool) {
		if svc.manager.submit == nil { // else the name is the service manager's, and who connects now waits for our successor
			_ = os.Remove(filepath.Join(svc.app.spool, spool.SubmitSocket))
		}
		l.Close()
		cancel() // closes the ports
		for range cap(done) {
			if err := <-done; err != nil {
				svc.log.Error("submissions ended", "err", err)
			}
		}
		grace, cancel := context.WithTimeout(context.Background(), intakeGrace)
		defer cancel()
		srv.Shutdown(grace)
		if last {
			svc.lastLook()
		}
	}, nil
}

// lastLook takes what is in drop/ when nobody can reach the socket any more.
func (svc *service) lastLook() {
	srv := submit.New(svc.spool, policy(svc.config.Load()), svc.log)
	if err := srv.ScanDrops(context.Background()); err != nil {
		svc.log.Error("drop directory not read", "err", err)
	}
	grace, cancel := context.WithTimeout(context.Background(), intakeGrace)
	defer cancel()
	srv.Shutdown(grace)
}
