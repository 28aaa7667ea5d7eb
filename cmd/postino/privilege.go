package main

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// becomeOwner makes root the owner of a spool directory, for good: nothing in
// there may make root follow a link or leave a file that the runner cannot read.
// Others stay who they are, and so does root where the directory is its own.
//
// The groups are those that the owner has as a user; of an owner without a passwd
// entry it is the directory's group alone.
func becomeOwner(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	if st.Uid == 0 {
		return nil
	}
	uid, gid, groups := int(st.Uid), int(st.Gid), []int{int(st.Gid)}
	if primary, all, ok := groupsOf(uid); ok {
		gid, groups = primary, all
	}
	// In package syscall these are for all threads of the process.
	err := syscall.Setgroups(groups)
	if err == nil {
		err = syscall.Setresgid(gid, gid, gid)
	}
	if err == nil {
		err = syscall.Setresuid(uid, uid, uid)
	}
	if err != nil {
		return &exitError{status: exOS, err: fmt.Errorf("cannot become uid %d, the owner of %s: %w: start postino as that user", uid, dir, err)}
	}
	return nil
}

// groupsOf returns the groups of a user, as far as they are written down.
func groupsOf(uid int) (primary int, all []int, ok bool) {
	u, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		return 0, nil, false
	}
	if primary, err = strconv.Atoi(u.Gid); err != nil {
		return 0, nil, false
	}
	all = []int{primary}
	names, err := u.GroupIds()
	if err != nil {
		return primary, all, true // without them we can read less, not more
	}
	for _, name := range names {
		if gid, err := strconv.Atoi(name); err == nil && gid != primary {
			all = append(all, gid)
		}
	}
	return primary, all, true
}
