// go-fuse builds on machines of 64 bits alone.

//go:build !386

// recordfs serves a file system that writes down everything that is done to it, so
// that a test can find out what a power cut would leave. Files are in memory.
//
//	recordfs -log FILE [-fail N [-forget]] [-slow DURATION] DIRECTORY
//
// It mounts itself on DIRECTORY, says "ready", and answers each line on standard
// input with "ok" when it has logged it as a mark. At the end of standard input it
// unmounts and ends. It has to be a process of its own: one that serves a file and
// maps it into memory as well waits for itself.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"postino/cmd/durability/disk"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "recordfs:", err)
		os.Exit(1)
	}
}

func run(marks io.Reader, answers io.Writer) error {
	logName := flag.String("log", "", "the log's `FILE`")
	failing := flag.Int("fail", 0, "the sync with this `NUMBER` fails, the first is 1")
	forget := flag.Bool("forget", false, "what that sync was to write is no longer read either")
	slow := flag.Duration("slow", 0, "how long each sync takes")
	flag.Parse()
	if flag.NArg() != 1 {
		return fmt.Errorf("one directory is needed, there are %d arguments", flag.NArg())
	}
	out, err := os.Create(*logName)
	if err != nil {
		return err
	}
	defer out.Close()
	v := newVolume(disk.NewLog(out), *failing, *forget)
	server, err := mount(v, flag.Arg(0), *slow)
	if err != nil {
		return err
	}
	fmt.Fprintln(answers, "ready")
	for lines := bufio.NewScanner(marks); lines.Scan(); fmt.Fprintln(answers, "ok") {
		v.mark(strings.Clone(lines.Text()))
	}
	// Whoever still has a file open shall not keep us from ending.
	if err := unix.Unmount(flag.Arg(0), unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount: %w", err)
	}
	_ = server // ends with us
	return v.close()
}

func mount(v *volume, dir string, slow time.Duration) (*fuse.Server, error) {
	fs := &fileSystem{RawFileSystem: fuse.NewDefaultRawFileSystem(), volume: v, slow: slow}
	server, err := fuse.NewServer(fs, dir, &fuse.MountOptions{
		AllowOther: true, DirectMountStrict: true, FsName: "recordfs", Name: "recordfs",
		Options: []string{"default_permissions"}, DisableXAttrs: true, DisableReadDirPlus: true,
	})
	if err != nil {
		return nil, err
	}
	go server.Serve()
	return server, server.WaitMount()
}
