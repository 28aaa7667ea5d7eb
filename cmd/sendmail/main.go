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
	switch name := baseName(argv[0]); name {
	case "mailq", "newaliases", "hoststat", "purgestat", "runq", "smtpd":
		return report(execPostino(argv))
	}
	o, err := parse(argv[1:])
	switch {
	case err != nil:
		drain(unix.Stdin)
		return report(err)
	case o.help:
		return show(usage)
	case o.version, o.debug && !o.fromHeader && len(o.operands) == 0:
		return show("postino sendmail " + version + "\n")
	case o.elsewhere:
		return report(execPostino(argv))
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

// report prints err as one line on standard error and returns its exit status.
func report(err error) int {
	if err == nil {
		return exitOK
	}
	line := "sendmail: " + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, err.Error()) + "\n"
	// Not by os.Stderr, with which a closed pipe is death by SIGPIPE: who reads no
	// errors shall still have the status.
	_, _ = unix.Write(unix.Stderr, []byte(line))
	return status(err)
}

// baseName is the last element of a path.
func baseName(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// execPostino replaces this process by the program postino, under the name and
// with the arguments we were called with. It returns only to say why it cannot.
func execPostino(argv []string) error {
	path, err := findPostino(argv[0])
	if err != nil {
		return err
	}
	argv = append([]string{baseName(argv[0])}, argv[1:]...)
	err = syscall.Exec(path, argv, os.Environ())
	return &exitError{exitOS, path + ": " + err.Error()}
}
