package main

import (
	"math"
	"os"
	"path"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// findPostino finds the program postino: beside this program, beside the name it
// was called by, else where programs are. The caller's PATH has no say, since the
// caller of a mailer often did not choose it.
func findPostino(argv0 string) (string, error) {
	var places []string
	if self, err := os.Readlink("/proc/self/exe"); err == nil {
		places = append(places, path.Dir(self))
	}
	// Never a relative name: the current directory may be anybody's.
	if path.IsAbs(argv0) {
		places = append(places, path.Dir(argv0))
	}
	places = append(places, "/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/sbin", "/bin")
	for _, place := range places {
		name := path.Join(place, "postino")
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return name, nil
		}
	}
	return "", &exitError{exitOS, "the program postino is missing: install it beside sendmail"}
}

// startRunner starts a runner that ends when the queue is empty, for a spool that
// is the caller's own and has no service manager to look after it. It is not
// waited for, and nothing is said when it cannot start: the mail is safe, and the
// next submission tries again. Of several runners all but one find the spool
// locked and leave.
func startRunner(spool, argv0 string) {
	var st unix.Stat_t
	if unix.Stat(spool, &st) != nil || int(st.Uid) != unix.Geteuid() {
		return
	}
	postino, err := findPostino(argv0)
	if err != nil {
		return
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	args := []string{"postino", "run", "--until-empty"}
	if config := os.Getenv("POSTINO_CONFIG"); config != "" && config[0] != '/' {
		// The runner is going to be in another directory.
		here, err := os.Getwd()
		if err != nil {
			return
		}
		args = append(args, "--config", here+"/"+config)
	}
	closeOnExec()
	_, _ = syscall.ForkExec(postino, args, &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{uintptr(null), uintptr(null), uintptr(null)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
}

// closeOnExec keeps what the caller left open, such as the other end of its own
// pipe, from a runner that may live for days.
func closeOnExec() {
	const firstOther = 3
	if unix.CloseRange(firstOther, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	entries, err := os.ReadDir("/proc/self/fd") // Linux before 5.11
	if err != nil {
		return
	}
	for _, e := range entries {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd >= firstOther {
			unix.CloseOnExec(fd)
		}
	}
}
