package config

import (
	"encoding"
	"errors"
	"fmt"
	"strings"
)

// setting is one key that may be written.
type setting struct {
	key string // with its table
	dst any    // a pointer into the Config
	// min and max bound a whole number.
	min, max int64
}

// settings are the keys of this version, in the order of the manual, those of
// the relay only when there is one. Reading, writing and suggestions all go by
// this list.
func (c *Config) settings() []setting {
	list := []setting{
		{key: "hostname", dst: &c.Hostname},
		{key: "domain", dst: &c.Domain},
		{key: "local_domains", dst: &c.LocalDomains},
		{key: "max_message_size", dst: &c.MaxMessageSize},
		{key: "mode", dst: &c.Mode},
		{key: "redirect_to", dst: &c.RedirectTo},
		{key: "bounce_to", dst: &c.BounceTo},
	}
	if c.Relay != nil {
		list = append(list, c.Relay.settings("relay.")...)
	}
	for i := range c.Routes {
		list = append(list, c.Routes[i].settings(fmt.Sprintf("route.%d.", i))...)
	}
	list = append(list, []setting{
		{key: "mx.port", dst: &c.MX.Port, min: 1, max: 65535},
		{key: "mx.tls", dst: &c.MX.TLS},
		{key: "mx.resolver", dst: &c.MX.Resolver},
		{key: "mx.ip", dst: &c.MX.IP},
		{key: "mx.allow_loopback", dst: &c.MX.AllowLoopback},
		{key: "from.envelope", dst: &c.From.Envelope},
		{key: "from.header", dst: &c.From.Header},
		{key: "from.address", dst: &c.From.Address},
		{key: "from.name", dst: &c.From.Name},
		{key: "from.generic", dst: &c.From.Generic},
		{key: "from.keep_as", dst: &c.From.KeepAs},
		{key: "aliases.file", dst: &c.Aliases.File},
		{key: "aliases.programs", dst: &c.Aliases.Programs},
		{key: "aliases.run_as", dst: &c.Aliases.RunAs},
		{key: "aliases.helper", dst: &c.Aliases.Helper},
		{key: "aliases.forward", dst: &c.Aliases.Forward},
		{key: "local.deliver", dst: &c.Local.Deliver},
		{key: "local.helper", dst: &c.Local.Helper},
		{key: "retry.first", dst: &c.Retry.First},
		{key: "retry.max", dst: &c.Retry.Max},
		{key: "retry.lifetime", dst: &c.Retry.Lifetime},
		{key: "retry.warn_after", dst: &c.Retry.WarnAfter},
		{key: "timeouts.connect", dst: &c.Timeouts.Connect},
		{key: "timeouts.greeting", dst: &c.Timeouts.Greeting},
		{key: "timeouts.command", dst: &c.Timeouts.Command},
		{key: "timeouts.data", dst: &c.Timeouts.Data},
		{key: "timeouts.dot", dst: &c.Timeouts.Dot},
		{key: "limits.per_uid", dst: &c.Limits.PerUID},
		{key: "limits.recipients_per_uid", dst: &c.Limits.RecipientsPerUID},
		{key: "limits.max_recipients", dst: &c.Limits.MaxRecipients, min: 1, max: 100000},
		{key: "limits.allow_from", dst: &c.Limits.AllowFrom},
		{key: "limits.mailq", dst: &c.Limits.Mailq},
	}...)
	for i := range c.DKIM {
		table, k := fmt.Sprintf("dkim.%d.", i), &c.DKIM[i]
		list = append(list, setting{key: table + "domain", dst: &k.Domain}, setting{key: table + "selector", dst: &k.Selector},
			setting{key: table + "key_file", dst: &k.KeyFile})
	}
	return append(list, []setting{
		{key: "smtp.listen", dst: &c.SMTP.Listen},
		{key: "metrics.listen", dst: &c.Metrics.Listen},
		{key: "metrics.names", dst: &c.Metrics.Names},
		{key: "history.keep", dst: &c.History.Keep},
		{key: "history.max_size", dst: &c.History.MaxSize},
		{key: "history.keep_failed", dst: &c.History.KeepFailed},
		{key: "history.failed_size", dst: &c.History.FailedSize},
		{key: "log.format", dst: &c.Log.Format},
		{key: "log.to", dst: &c.Log.To},
	}...)
}

// settings are those of a route, in the table of that name.
func (r *Route) settings(table string) []setting {
	list := []setting{
		{key: table + "recipients", dst: &r.Recipients},
		{key: table + "senders", dst: &r.Senders},
		{key: table + "from", dst: &r.From},
		{key: table + "transport", dst: &r.Transport},
	}
	if r.Relay != nil {
		list = append(list, r.Relay.settings(table)...)
	}
	return list
}

// settings are those of a relay, in the table of that name.
func (r *Relay) settings(table string) []setting {
	list := []setting{
		{key: table + "preset", dst: &r.Preset},
		{key: table + "host", dst: &r.Host},
		{key: table + "port", dst: &r.Port, max: 65535},
		{key: table + "tls", dst: &r.TLS},
		{key: table + "ca_file", dst: &r.CAFile},
		{key: table + "tls_pin", dst: &r.TLSPin},
		{key: table + "tls_min", dst: &r.TLSMin},
		{key: table + "cert_file", dst: &r.CertFile},
		{key: table + "key_file", dst: &r.KeyFile},
		{key: table + "auth", dst: &r.Auth},
		{key: table + "username", dst: &r.Username},
		{key: table + "password", dst: &r.Password},
		{key: table + "password_file", dst: &r.PasswordFile},
		{key: table + "password_command", dst: &r.PasswordCommand},
		{key: table + "credential", dst: &r.Credential},
		{key: table + "max_connections", dst: &r.MaxConnections, min: 1, max: 100},
		{key: table + "messages_per_connection", dst: &r.MessagesPerConnection, min: 1, max: 10000},
		{key: table + "rate", dst: &r.Rate},
		{key: table + "source_address", dst: &r.SourceAddress},
		{key: table + "proxy", dst: &r.Proxy},
	}
	return append(list, r.OAuth.settings(table+"oauth.")...)
}

// assign sets s from a value as the TOML decoder gives it. The error does not
// name the key, and never holds the value of a password.
func (s setting) assign(v any) error {
	var ok bool
	switch dst := s.dst.(type) {
	case *string:
		if *dst, ok = v.(string); !ok {
			return errors.New(`not text: write it in quotes`)
		}
		return checkText(*dst)
	case *Secret:
		text, ok := v.(string)
		if !ok {
			return errors.New(`not text: write it in quotes`)
		}
		if text == hidden {
			return fmt.Errorf("%q only stands where a password is not shown: write the password itself", hidden)
		}
		*dst = Secret(text)
		return checkText(text)
	case *bool:
		if *dst, ok = v.(bool); !ok {
			return errors.New("want true or false, without quotes")
		}
	case *int:
		n, ok := v.(int64)
		if !ok || n < s.min || n > s.max {
			return fmt.Errorf("want a whole number from %d to %d", s.min, s.max)
		}
		*dst = int(n)
	case *[]string:
		return assignList(dst, v)
	case *map[string]string:
		return assignTable(dst, v, assignText)
	case *map[string][]string:
		return assignTable(dst, v, assignList)
	case *Hosts:
		if one, ok := v.(string); ok {
			v = []any{one}
		}
		return assignList((*[]string)(dst), v)
	case encoding.TextUnmarshaler:
		switch v.(type) {
		case string, int64, bool: // of the last two the type says what is wrong with it
			return dst.UnmarshalText(fmt.Append(nil, v))
		}
		return errors.New(`not text: write it in quotes`)
	}
	return nil
}

// assignList sets *dst to a list of strings; an empty list is nil.
func assignList(dst *[]string, v any) error {
	values, ok := v.([]any)
	if !ok {
		return errors.New(`not a list: write ["…", "…"]`)
	}
	*dst = nil
	for _, v := range values {
		text, ok := v.(string)
		if !ok || text == "" {
			return errors.New(`not a list of texts: write ["…", "…"]`)
		}
		if err := checkText(text); err != nil {
			return err
		}
		*dst = append(*dst, text)
	}
	return nil
}

// checkText refuses what no name, path or password has, and what could end a
// line of the protocol or of the log.
func checkText(s string) error {
	if hasControl(s) {
		return errors.New("a control character in it: remove it")
	}
	return nil
}

func hasControl(s string) bool { return strings.ContainsFunc(s, isControl) }

// isControl: C0, DEL and C1.
func isControl(c rune) bool { return c < ' ' || c >= 0x7f && c < 0xa0 }
