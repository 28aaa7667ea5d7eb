package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// perUser makes the configuration and the spool those of the calling user, where the
// XDG base directories are: nothing of the system's is read then.
func (a *app) perUser() error {
	home := a.env("HOME", "")
	configHome, stateHome := a.env("XDG_CONFIG_HOME", ""), a.env("XDG_STATE_HOME", "")
	// A relative one is to be ignored (XDG Base Directory Specification).
	if !filepath.IsAbs(configHome) {
		configHome = filepath.Join(home, ".config")
	}
	if !filepath.IsAbs(stateHome) {
		stateHome = filepath.Join(home, ".local/state")
	}
	if !filepath.IsAbs(configHome) || !filepath.IsAbs(stateHome) {
		return errors.New("HOME is not set: whose would it be?")
	}
	a.user = true
	a.config, a.spool = filepath.Join(configHome, "postino/postino.toml"), filepath.Join(stateHome, "postino")
	return nil
}

// userEnvironment has what the systemd of the user starts find the own spool and
// configuration: sendmail asks nothing but POSTINO_SPOOL. See environment.d(5), which no
// login by ssh, su or on a console reads.
func (a *app) userEnvironment() error {
	if !a.user {
		return nil
	}
	text := fmt.Sprintf("POSTINO_SPOOL=%s\nPOSTINO_CONFIG=%s\n", a.spool, a.config)
	path := filepath.Join(filepath.Dir(filepath.Dir(a.config)), "environment.d", "60-postino.conf")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return &exitError{status: exCantCreate, err: err}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return &exitError{status: exCantCreate, err: err}
	}
	a.say("wrote %s: what your systemd starts from the next login on, such as a desktop, uses %s", path, a.spool)
	a.say("A login by ssh or on the console does not read it. For these, and for this shell, the line in ~/.profile is:")
	a.say("  export POSTINO_SPOOL=%s POSTINO_CONFIG=%s", a.spool, a.config)
	return nil
}
