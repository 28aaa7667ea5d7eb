package main

import (
	"errors"
	"strings"

	"postino/spool/handoff"
	"postino/spool/header"
)

// The exit statuses, as sysexits.h has them. A submission never ends with 67 or
// 68, for which some callers drop the mail, nor with 75, which means "queued" to
// one half of them and "not queued" to the other.
const (
	exitOK     = 0
	exitUsage  = 64
	exitData   = 65
	exitOS     = 71
	exitCreate = 73
	exitIO     = 74
	exitPolicy = 77
)

// exitError is an error that knows its exit status.
type exitError struct {
	code int
	text string
}

func (e *exitError) Error() string { return e.text }

// status is the exit status for err.
func status(err error) int {
	var known *exitError
	var refused *handoff.Refused
	var failure *handoff.Failure
	switch {
	case errors.As(err, &known):
		return known.code
	case errors.As(err, &refused) && strings.HasPrefix(refused.Status, "5.7."):
		return exitPolicy
	case errors.As(err, &refused), errors.Is(err, handoff.ErrTooLarge), errors.Is(err, header.ErrTooLarge),
		errors.Is(err, handoff.ErrTooManyRecipients):
		return exitData
	case errors.As(err, &failure) && failure.Create:
		return exitCreate
	}
	return exitIO
}
