package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"

	"postino/delivery/control"
	"postino/spool"
)

// The exit statuses, beyond 0, as sysexits.h has them.
const (
	exFailure     = 1 // nothing found, or the spool is another runner's
	exUsage       = 64
	exNoUser      = 67 // of -bv alone: from a submission some callers take it for success
	exUnavailable = 69
	exOS          = 71
	exCantCreate  = 73
	exIO          = 74
	exNoPerm      = 77
	exConfig      = 78
)

// exitError is an error that knows its exit status.
type exitError struct {
	status int
	err    error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

func usageError(format string, args ...any) error {
	return &exitError{status: exUsage, err: fmt.Errorf(format, args...)}
}

// exitStatus is the exit status for err.
func exitStatus(err error) int {
	var known *exitError
	var locked *spool.LockedError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &known):
		return known.status
	case errors.As(err, &locked), errors.Is(err, spool.ErrNotFound),
		errors.Is(err, control.ErrContentGone), errors.Is(err, control.ErrConflict):
		return exFailure
	case errors.Is(err, control.ErrNoRunner):
		return exUnavailable
	case errors.Is(err, control.ErrConfig):
		return exConfig
	case errors.Is(err, control.ErrNotAllowed), errors.Is(err, fs.ErrPermission):
		return exNoPerm
	}
	return exIO
}
