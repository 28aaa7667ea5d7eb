package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postino/config"
	"postino/delivery"
	"postino/delivery/control"
	"postino/delivery/oauth"
	"postino/spool"
)

// runAuthLogin is the auth login command: somebody allows the runner to send mail for
// an account.
func runAuthLogin(ctx context.Context, a *app, o options, operands []string) error {
	r, store, err := a.account(o, operands)
	if err != nil {
		return err
	}
	t, err := store.Login(ctx, r, a.prompt, a.lines())
	if err != nil {
		return a.loginFailed(err)
	}
	said := fmt.Sprintf("%s is logged in.\n", r.Username)
	switch {
	case r.OAuth.Flow == config.FlowClient:
		said = fmt.Sprintf("%s gives a token%s; the runner fetches one itself.\n", r.OAuth.TokenURL, until(a, t))
	case t.Refresh == "":
		said += fmt.Sprintf("%s gives nothing to refresh the token with: it is good%s, and then somebody has to log in again. Is a scope missing, such as offline_access?\n", r.OAuth.TokenURL, until(a, t))
	}
	if _, err := io.WriteString(a.stdout, spool.CleanText(strings.TrimSuffix(said, "\n"))+"\n"); err != nil {
		return err
	}
	return a.askToReload(ctx) // what waits for the login is due
}

// loginFailed gives an error of a login its exit status.
func (a *app) loginFailed(err error) error {
	if oauth.Lasting(err) {
		return &exitError{status: exNoPerm, err: err}
	}
	return &exitError{status: exUnavailable, err: err}
}

func until(a *app, t oauth.Token) string {
	if t.Expires.IsZero() {
		return ""
	}
	return " until " + t.Expires.In(a.zone).Format(time.DateTime)
}

// prompt tells what to do in a browser.
func (a *app) prompt(p oauth.Prompt) error {
	said := []string{"Open this page in a browser, and log in as the account to send mail for:", "", "  " + p.URL, ""}
	if p.Code != "" {
		said = append(said, "Enter this code there:", "", "  "+p.Code, "")
		if p.Whole != "" {
			said = append(said, "Or open the page with the code in it:", "", "  "+p.Whole, "")
		}
		said = append(said, fmt.Sprintf("Waiting until %s ...", p.Expires.In(a.zone).Format(time.TimeOnly)))
	} else {
		said = append(said, "In the end the browser comes to a page of http://127.0.0.1, which it cannot show",
			"unless it is on this machine. Then copy the address of that page and paste it here:")
	}
	_, err := io.WriteString(a.stdout, strings.Join(said, "\n")+"\n")
	return err
}

// lines are those of standard input. The goroutine ends with the program: nobody can
// take a read from a terminal back.
func (a *app) lines() <-chan string {
	c := make(chan string)
	go func() {
		defer close(c)
		for s := bufio.NewScanner(a.stdin); s.Scan(); {
			c <- s.Text()
		}
	}()
	return c
}

// runAuthLogout is the auth logout command.
func runAuthLogout(ctx context.Context, a *app, o options, operands []string) error {
	r, store, err := a.account(o, operands)
	if err != nil {
		return err
	}
	if r.OAuth.Flow == config.FlowClient {
		return &exitError{status: exConfig, err: errors.New("with client_credentials there is no login: take [relay.oauth] out of the configuration")}
	}
	found, err := store.Logout(ctx, r)
	switch {
	case err != nil:
		return err
	case !found:
		return &exitError{status: exFailure, err: fmt.Errorf("%s is not logged in", r.Username)}
	}
	_, err = fmt.Fprintf(a.stdout, "The token of %s is removed; the provider may still list the access that was given.\n", spool.CleanText(r.Username))
	return err
}

// account is the account that the operands and flags mean, and the store of tokens,
// with us as the runner's user.
func (a *app) account(o options, operands []string) (*config.Relay, *oauth.Store, error) {
	if len(operands) > 1 {
		return nil, nil, usageError("one provider at a time: google, microsoft or the address of the token endpoint")
	}
	c, err := a.loadConfig()
	if err != nil {
		return nil, nil, err
	}
	what := strings.Join(operands, "")
	var names []string
	var found *config.Relay
	for _, r := range c.Accounts() {
		if !isProvider(r, what) || o.account != "" && r.Username != o.account {
			continue
		}
		if found == nil || found.Username != r.Username || found.OAuth != r.OAuth {
			names = append(names, strconv.Quote(r.Username))
			found = r
		}
	}
	switch len(names) {
	case 0:
		return nil, nil, &exitError{status: exConfig, err: fmt.Errorf("%s has no [relay.oauth] for that: write provider or token_url, and client_id, there (postino.toml(5))", a.config)}
	case 1:
		store, err := a.tokens()
		return found, store, err
	}
	return nil, nil, usageError("that is several accounts: say --account with one of %s", strings.Join(names, ", "))
}

// tokens is the store of tokens, with us as the runner's user.
func (a *app) tokens() (*oauth.Store, error) {
	if err := becomeOwner(a.spool); err != nil {
		return nil, &exitError{status: exUnavailable, err: fmt.Errorf("spool directory: %w: start the runner once, or name another with --spool", err)}
	}
	return oauth.New(filepath.Join(a.spool, oauth.Dir)), nil
}

// isProvider reports whether the account of r is one of a provider, which is named or
// given by the beginning of an endpoint's address; "" is any.
func isProvider(r *config.Relay, what string) bool {
	if what == "" || strings.EqualFold(what, string(r.OAuth.Provider)) {
		return true
	}
	for _, endpoint := range []string{r.OAuth.TokenURL, r.OAuth.DeviceURL, r.OAuth.AuthURL} {
		rest, begins := strings.CutPrefix(endpoint, strings.TrimSuffix(what, "/"))
		if begins && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// runAuthStatus is the auth status command. A runner that is up says what it uses;
// without one the files say what the next would.
func runAuthStatus(ctx context.Context, a *app, o options, operands []string) error {
	if len(operands) > 0 {
		return usageError("auth status takes no operands")
	}
	client := control.Dial(a.spool)
	defer client.Close()
	list, err := client.Logins(ctx)
	if errors.Is(err, control.ErrNoRunner) {
		list, err = a.storedLogins(ctx)
	}
	if err != nil {
		return err
	}
	var missing error
	err = a.output(func(w io.Writer) error {
		for _, l := range list {
			if !l.Good() {
				missing = &exitError{status: exFailure, err: fmt.Errorf("%s has no good login: run %q", l.Account, l.Remedy)}
			}
			var err error
			if o.json {
				err = writeLine(w, l)
			} else {
				_, err = fmt.Fprintln(w, spool.CleanText(a.loginLine(l)))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	return errors.Join(err, missing)
}

// storedLogins are the accounts of the configuration, by the files of their tokens.
func (a *app) storedLogins(ctx context.Context) ([]delivery.Login, error) {
	c, err := a.loadConfig()
	if err != nil {
		return nil, err
	}
	store, err := a.tokens()
	if err != nil {
		return nil, err
	}
	var list []delivery.Login
	for _, r := range c.Accounts() {
		l, err := store.State(ctx, r, time.Now())
		if err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	return list, nil
}

// loginLine is l as people read it.
func (a *app) loginLine(l delivery.Login) string {
	text := fmt.Sprintf("%s  %s, %s, %s  ", l.Account, l.Hop, l.Provider, l.Flow)
	switch l.Login {
	case oauth.LoginNone:
		text += "needs no login"
	case oauth.LoginOK, oauth.LoginExpired:
		text += "logged in, refreshed " + l.Refreshed.In(a.zone).Format(time.DateTime)
		if l.Login == oauth.LoginExpired {
			text += ", ended " + l.Expires.In(a.zone).Format(time.DateTime)
		}
		if !l.Refreshing {
			text += ", cannot be refreshed"
		}
	case oauth.LoginDamaged:
		text += "the file of the token is damaged"
	default:
		text += "not logged in"
	}
	if l.Problem != "" {
		text += "; the last refresh failed: " + l.Problem
	}
	return text
}
