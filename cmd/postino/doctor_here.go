package main

import (
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"postino/config"
	"postino/delivery/control"
	"postino/delivery/oauth"
	"postino/delivery/relay"
	"postino/spool"
)

// places are where callers look for sendmail and its relatives. Of some mailers the last
// two are beside sendmail, and root's PATH has those first.
func places() map[string][]string {
	return map[string][]string{
		"bin.sendmail":   {"/usr/sbin/sendmail", "/usr/lib/sendmail"},
		"bin.mailq":      {"/usr/bin/mailq", "/usr/sbin/mailq"},
		"bin.newaliases": {"/usr/bin/newaliases", "/usr/sbin/newaliases"},
	}
}

// programs looks which program callers call.
func (d *doctor) programs() []finding {
	var found []finding
	for _, check := range []string{"bin.sendmail", "bin.mailq", "bin.newaliases"} {
		found = append(found, program(check, places()[check]))
	}
	return found
}

func program(check string, paths []string) finding {
	found := finding{check, warning, paths[0] + " is not there: programs that call it send nothing", "./install.sh, or the package postino-mta, puts it there"}
	for _, path := range paths {
		real, ours, err := identify(path)
		if real == "" {
			continue
		}
		about := path
		if real != path {
			about = path + " is " + real
		}
		if err != nil || !ours {
			return finding{check, warning, about + ", which is not postino's: mail that is handed to it goes another way",
				"./install.sh, or the package postino-mta, puts postino in its place"}
		}
		if found.Status != well {
			found = finding{check, well, about + ", of postino", ""}
		}
	}
	return found
}

// identify says which file a program is, "" for none, and whether it is one of ours.
func identify(path string) (real string, ours bool, err error) {
	if real, err = filepath.EvalSymlinks(path); err != nil {
		return "", false, err
	}
	info, err := buildinfo.ReadFile(real)
	return real, err == nil && strings.HasPrefix(info.Path, "postino/cmd/"), err
}

// file looks at the configuration, which was read already.
func (d *doctor) file(context.Context) []finding {
	info, err := os.Stat(d.app.config)
	if errors.Is(err, fs.ErrNotExist) && d.config.Relay != nil {
		return []finding{{"conf.file", well, d.app.config + " is not there, and the environment names the smarthost", ""}}
	}
	if errors.Is(err, fs.ErrNotExist) {
		return []finding{{"conf.file", warning, d.app.config + " is not there, the defaults hold: mail goes directly to the exchangers of its recipients", "postino setup makes one"}}
	}
	if err != nil {
		return []finding{{"conf.file", failing, err.Error(), ""}}
	}
	f := finding{"conf.file", well, d.app.config, ""}
	for _, r := range relaysOf(d.config) {
		if r.relay.Password != "" && info.Mode().Perm()&0o004 != 0 {
			f = finding{"conf.file", failing, d.app.config + " has a password in it, and everybody can read it", "chmod 640 it, and chgrp it to the runner's group; or use password_file"}
		}
	}
	switch d.config.Mode {
	case config.Hold, config.Capture, config.Redirect:
		return []finding{f, {"conf.mode", warning, fmt.Sprintf("mode is %q", d.config.Mode), `mode = "deliver" sends mail to its recipients`}}
	}
	return []finding{f}
}

// relayOf is a smarthost and the table it stands in.
type relayOf struct {
	name  string
	relay *config.Relay
}

func relaysOf(c *config.Config) []relayOf {
	var list []relayOf
	if c.Relay != nil {
		list = append(list, relayOf{"relay", c.Relay})
	}
	for i, r := range c.Routes {
		if r.Relay != nil {
			list = append(list, relayOf{fmt.Sprintf("route.%d", i), r.Relay})
		}
	}
	return list
}

// secrets fetches each password as the runner does.
func (d *doctor) secrets(ctx context.Context) []finding {
	var found []finding
	for _, r := range relaysOf(d.config) {
		if !r.relay.Credentials() || r.relay.Auth == config.AuthExternal {
			continue
		}
		check := "conf.secret"
		if r.relay.OAuth.IsSet() {
			found = append(found, d.login(r))
			continue
		}
		_, err := r.relay.Secret(ctx)
		info, statErr := os.Stat(r.relay.PasswordFile)
		switch {
		case errors.Is(err, fs.ErrPermission) && !d.owner():
			found = append(found, finding{check, skipped, r.name + ": only root and the runner's user can tell", "run it as root"})
		case err != nil && r.relay.Credential != "":
			found = append(found, finding{check, failing, r.name + ": " + err.Error(), ""}) // it says what to do
		case err != nil:
			found = append(found, finding{check, failing, r.name + ": " + err.Error(), "make it readable for the runner's user, the owner of " + d.app.spool})
		case r.relay.PasswordFile != "" && statErr == nil && info.Mode().Perm()&0o044 != 0 && info.Mode().Perm()&0o004 != 0:
			found = append(found, finding{check, failing, r.relay.PasswordFile + ": everybody can read the password", "chmod 600 " + r.relay.PasswordFile})
		default:
			found = append(found, finding{check, well, r.name + ": there is a password", ""})
		}
	}
	return found
}

// login looks whether somebody has allowed us to fetch tokens.
func (d *doctor) login(r relayOf) finding {
	const check = "conf.secret"
	if r.relay.OAuth.Flow == config.FlowClient {
		_, err := r.relay.OAuth.ClientSecret()
		if err != nil {
			return finding{check, failing, r.name + ": " + err.Error(), "make it readable for the runner's user, the owner of " + d.app.spool}
		}
		return finding{check, well, r.name + ": there is a client secret", ""}
	}
	switch _, err := oauth.New(filepath.Join(d.app.spool, oauth.Dir)).Stored(r.relay); {
	case err == nil:
		return finding{check, well, r.name + ": " + r.relay.Username + " is logged in", ""}
	case errors.Is(err, fs.ErrPermission) && !d.owner():
		return finding{check, skipped, r.name + ": only root and the runner's user can tell", "run it as root"}
	default:
		return finding{check, failing, r.name + ": " + err.Error(), oauth.LoginCommand(r.relay)}
	}
}

// owner reports whether we are the runner's user.
func (d *doctor) owner() bool {
	info, err := os.Stat(d.app.spool)
	return err == nil && ownedBy(info, os.Geteuid())
}

// lowRoom and lowInodes are what a spool should have at least: some large mail.
const (
	lowRoom   = 200 << 20 // octets
	lowInodes = 1000
)

// spoolDir looks at the spool directory and its file system.
func (d *doctor) spoolDir(context.Context) []finding {
	const check = "spool.dir"
	dir := d.app.spool
	info, err := os.Stat(dir)
	if err != nil {
		return []finding{{check, failing, err.Error(), "start the runner once: postino run"}}
	}
	if mode := info.Mode().Perm(); mode&0o022 != 0 || mode&0o001 == 0 {
		return []finding{{check, failing, fmt.Sprintf("%s has mode %04o", dir, mode), "chmod 755 " + dir}}
	}
	drop := filepath.Join(dir, spool.DropDir)
	switch info, err := os.Stat(drop); {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{{check, failing, drop + " is not there: nobody can leave mail while the runner is down", "start the runner once: postino run"}}
	case err != nil:
		return []finding{{check, failing, err.Error(), ""}}
	case info.Mode()&(fs.ModeSticky|fs.ModePerm) != fs.ModeSticky|0o733:
		return []finding{{check, failing, fmt.Sprintf("%s has mode %v", drop, info.Mode()), "chmod 3733 " + drop}}
	}
	for parent := filepath.Dir(dir); ; parent = filepath.Dir(parent) {
		if info, err := os.Stat(parent); err == nil && info.Mode().Perm()&0o001 == 0 && !d.app.user {
			return []finding{{check, warning, fmt.Sprintf("%s has mode %04o: others cannot get to %s", parent, info.Mode().Perm(), dir), "chmod o+x " + parent}}
		}
		if parent == "/" || parent == "." {
			break
		}
	}
	found := []finding{{check, well, dir, ""}}
	for _, w := range spool.FilesystemWarnings(dir) {
		found = append(found, finding{"spool.fs", warning, w, ""})
	}
	return append(found, room(dir))
}

func room(dir string) finding {
	const check = "spool.room"
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return finding{check, skipped, err.Error(), ""}
	}
	free := st.Bavail * uint64(st.Bsize)
	text := fmt.Sprintf("%d MiB are free", free>>20)
	if free < lowRoom || st.Files > 0 && st.Ffree < lowInodes {
		return finding{check, warning, fmt.Sprintf("%s, and %d inodes", text, st.Ffree), "make room: new mail is refused before the disk is full"}
	}
	return finding{check, well, text, ""}
}

// runner asks the runner how it does.
func (d *doctor) runner(ctx context.Context) []finding {
	const check = "runner"
	client := control.Dial(d.app.spool)
	defer client.Close()
	st, err := client.Status(ctx)
	if errors.Is(err, control.ErrNoRunner) {
		if d.own || d.app.user {
			return []finding{{check, well, "not running: sendmail starts one for the moment, since the spool is the caller's own", ""}}
		}
		return []finding{{check, failing, "not running: mail waits in " + filepath.Join(d.app.spool, spool.DropDir), "systemctl enable --now postino, or sendmail -bd where no service manager is"}}
	}
	if err != nil {
		return []finding{{check, failing, err.Error(), ""}}
	}
	found := []finding{{check, well, fmt.Sprintf("postino %s runs as pid %d, %s pending", st.Version, st.PID, messages(st.Pending)), ""}}
	known := spool.FilesystemWarnings(d.app.spool) // spool.fs has them
	for _, w := range st.Warnings {
		if slices.Contains(known, w) {
			continue
		}
		found = append(found, finding{check, warning, w, ""})
	}
	for _, al := range st.Alerts {
		found = append(found, finding{check, failing, fmt.Sprintf("mail for %s waits since %s: %s", al.Hop, al.Since.Format(time.RFC3339), al.Reply), al.Remedy})
	}
	return found
}

// relays are a check for each smarthost.
func (d *doctor) relays() []exam {
	var list []exam
	for _, r := range relaysOf(d.config) {
		list = append(list, func(ctx context.Context) []finding { return d.relay(ctx, r) })
	}
	return list
}

// relay goes as far with a smarthost as mail would.
func (d *doctor) relay(ctx context.Context, of relayOf) []finding {
	r, err := relay.New(of.relay, d.config.Timeouts, d.config.Hostname, oauth.New(filepath.Join(d.app.spool, oauth.Dir)))
	if err != nil {
		return []finding{{of.name, failing, err.Error(), ""}}
	}
	defer r.Close()
	var found []finding
	for i, reply := range r.Check(ctx) {
		text := reply.Text
		if reply.Host != "" {
			text = reply.Host + ": " + text
		}
		if reply.Code != 0 && reply.Class() != spool.Success {
			text = fmt.Sprintf("%s: %d %s %s", reply.Host, reply.Code, reply.Status, reply.Text)
		}
		f := finding{of.name, well, fmt.Sprintf("%s (%s)", text, firstOf(reply.TLS, "no TLS")), ""}
		switch {
		case reply.Class() == spool.Success:
		case reply.Command == "AUTH" && reply.Code == 0 && !d.owner():
			f = finding{of.name, skipped, text, "run it as root: the password is for the runner's user"}
		case reply.Command == "connect":
			f = finding{of.name, failing, text, d.otherPorts(ctx, of.relay, i)}
		default:
			f = finding{of.name, failing, text, reply.Remedy}
		}
		found = append(found, f)
	}
	return found
}

// otherPorts says which of the other ports for submission answers.
func (d *doctor) otherPorts(ctx context.Context, r *config.Relay, at int) string {
	for _, port := range []int{587, 465, 2525} {
		if port == r.Port {
			continue
		}
		const wait = 3 * time.Second
		conn, err := (&net.Dialer{Timeout: wait}).DialContext(ctx, "tcp", net.JoinHostPort(r.Host[at], strconv.Itoa(port)))
		if err == nil {
			conn.Close()
			return fmt.Sprintf("port %d answers: port = %d", port, port)
		}
	}
	return "nothing answers at 587, 465 or 2525 either: is there a firewall, or a slip in the name?"
}
