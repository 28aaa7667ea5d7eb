package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"postino/delivery/control"
)

// stopWait is how long stop waits for the end of the runner: attempts under way have
// their grace, as long as the service managers give it.
const stopWait = 45 * time.Second

// runReload is the reload command.
func runReload(ctx context.Context, a *app, _ options, operands []string) error {
	if len(operands) > 0 {
		return usageError("reload takes no operands")
	}
	client := control.Dial(a.spool)
	defer client.Close()
	return client.Reload(ctx)
}

// runStop is the stop command.
func runStop(ctx context.Context, a *app, _ options, operands []string) error {
	if len(operands) > 0 {
		return usageError("stop takes no operands")
	}
	client := control.Dial(a.spool)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	err := client.Stop(ctx)
	var remote *control.RemoteError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		err = fmt.Errorf("the runner has not ended within %v: see what it does in its log, or kill it: no mail is lost by that", stopWait)
	case errors.As(err, &remote) && remote.Code == http.StatusNotFound:
		err = errors.New("the runner is of a version that cannot be asked to end: stop it by what started it, or send it SIGTERM")
	default:
		return err
	}
	return &exitError{status: exFailure, err: err}
}
