// Command sendmail takes a message as sendmail(8) would and hands it to postino.
//
// It is what every caller waits for, so it is small: message mode is all it does,
// with nothing beyond the light part of the standard library. Everything else it
// leaves to the program postino by executing it.
package main

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// version is set by the linker: -ldflags "-X main.version=1.2.3".
var version = "dev"

func main() { os.Exit(run(os.Args)) }

// run is the program; it returns the exit status.
func run(argv []string) int {
	if len(argv) == 0 {
		argv = []string{"sendmail"} // execve allows that
	}
	name := baseName(argv[0])
	switch name {
	case "mailq", "newaliases", "hoststat", "purgestat", "runq", "smtpd":
		return report(execPostino(argv[0], name, argv[1:]))
	}
	o, err := parse(argv[1:])
	switch name {
	case "rmail":
		o.keepDots = true // what comes by UUCP ends where the input does
	case "rsmtp":
		err = usageError("rsmtp: batch SMTP is not taken: use sendmail -bs")
	}
	switch {
	case err != nil:
		drain(unix.Stdin)
		return report(err)
	case o.help:
		return show(usage)
	case o.version, o.asksVersion():
		return show("postino sendmail " + version + "\n")
	case o.elsewhere:
		return report(execPostino(argv[0], "sendmail", argv[1:]))
	}
	if len(o.ignored) > 0 {
		syslog(logSocket, severityNotice, "ignored: "+strings.Join(o.ignored, ", "))
	}
	defaultAction(unix.SIGQUIT)
	return report(submit(o, argv[0]))
}

// show prints text on standard output.
func show(text string) int {
	if _, err := unix.Write(unix.Stdout, []byte(text)); err != nil {
		return exitIO
	}
	return exitOK
}

// report prints err as one line on standard error, tells the system's log, and
// returns the exit status.
func report(err error) int {
	if err == nil {
		return exitOK
	}
	text := clean(err.Error())
	syslog(logSocket, severityError, text)
	line := "sendmail: " + text + "\n"
	// Not by os.Stderr, with which a closed pipe is death by SIGPIPE: who reads no
	// errors shall still have the status.
	_, _ = unix.Write(unix.Stderr, []byte(line))
	return status(err)
}

// clean makes text one line that terminals and logs can be trusted with.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// baseName is the last element of a path.
func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// execPostino replaces this process, which was called as argv0, by the program
// postino. That does what its name tells it, which is one of sendmail's programs
// and no name that somebody else gave a link to us. It returns only to say why it
// cannot.
func execPostino(argv0, name string, args []string) error {
	path, err := findPostino(argv0)
	if err != nil {
		return err
	}
	err = syscall.Exec(path, append([]string{name}, args...), os.Environ())
	return &exitError{exitOS, path + ": " + err.Error()}
}
