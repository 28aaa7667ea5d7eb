package config

import (
	"slices"
	"strings"
	"testing"
)

// Of each provider it is known what it says when something is wrong with the account,
// and what is to be done then; m365-direct and gmail-relay among them.
func TestEveryProviderHasFaults(t *testing.T) {
	known := presets()
	for name := range known {
		list := (&Relay{Preset: Preset(name)}).Faults()
		if !slices.ContainsFunc(list, func(f Fault) bool { return slices.Contains(f.Presets, name) }) {
			t.Errorf("%s: no fault of its own", name)
		}
	}
	for i, f := range faults() {
		for _, p := range f.Presets {
			if known[p] == nil {
				t.Errorf("fault %d: %s is no preset", i+1, p)
			}
		}
		if f.Remedy == "" || strings.HasSuffix(f.Remedy, ".") || !slices.Contains([]string{"relay", "network", "sender"}, f.Kind) {
			t.Errorf("fault %d: %+v", i+1, f)
		}
	}
}

// What is said about us is told from what is said about the mail, by provider.
func TestFaultsOfProviders(t *testing.T) {
	for _, tt := range []struct {
		relay         Relay
		command       string
		code          int
		status, reply string
		kind          string // empty: about the mail
	}{
		{Relay{Preset: "gmail"}, "dot", 550, "5.4.5", "Daily user sending limit exceeded. For more information", "relay"},
		{Relay{Host: Hosts{"SMTP.gmail.com."}}, "RCPT", 550, "5.4.5", "Daily user sending quota exceeded", "relay"},
		{Relay{Preset: "gmail"}, "AUTH", 534, "5.7.9", "Application-specific password required", "relay"},
		{Relay{Preset: "gmail-relay"}, "dot", 550, "5.7.1", "Daily SMTP relay limit exceeded for customer.", "relay"},
		{Relay{Preset: "gmail"}, "RCPT", 550, "5.1.1", "The email account that you tried to reach does not exist", ""},
		{Relay{Preset: "gmail"}, "dot", 552, "5.2.3", "Your message exceeded Google's message size limits", ""},
		{Relay{Preset: "gmail"}, "RCPT", 452, "4.2.2", "The recipient's inbox is out of storage space", ""},
		{Relay{Preset: "m365"}, "dot", 554, "5.2.252", "SendAsDenied; a@x.test not allowed to send as b@x.test", "sender"},
		{Relay{Preset: "m365"}, "MAIL", 550, "5.7.60", "SMTP; Client does not have permissions to send as this sender", "sender"},
		{Relay{Preset: "m365"}, "AUTH", 535, "5.7.139", "Authentication unsuccessful, SmtpClientAuthentication is disabled for the Tenant.", "relay"},
		{Relay{Preset: "m365"}, "dot", 550, "5.1.8", "Access denied, bad outbound sender", "relay"},
		{Relay{Preset: "m365"}, "dot", 550, "5.1.10", "RESOLVER.ADR.RecipientNotFound", ""},
		{Relay{Host: Hosts{"x-test.mail.protection.outlook.com"}}, "RCPT", 550, "5.7.64", "TenantAttribution; Relay Access Denied", "relay"},
		{Relay{Host: Hosts{"email-smtp.eu-west-1.amazonaws.com"}}, "dot", 554, "5.0.0", "Message rejected: Email address is not verified. The following identities failed the check in region EU-WEST-1: a@x.test", "sender"},
		{Relay{Preset: "ses"}, "dot", 454, "4.0.0", "Throttling failure: Daily message quota exceeded.", "relay"},
		{Relay{Preset: "ses"}, "dot", 454, "4.0.0", "Throttling failure: Maximum sending rate exceeded.", ""},
		{Relay{Preset: "sendgrid"}, "dot", 550, "5.0.0", "The from address does not match a verified Sender Identity. Mail cannot be sent until this error is resolved.", "sender"},
		{Relay{Preset: "sendgrid"}, "AUTH", 451, "4.0.0", "Authentication failed: Maximum credits exceeded", "relay"},
		{Relay{Preset: "mailgun"}, "dot", 421, "4.3.2", "Domain sandbox1.mailgun.org is not allowed to send: Please activate your Mailgun account.", "relay"},
		{Relay{Preset: "brevo"}, "AUTH", 525, "5.7.1", "Unauthorized IP address", "relay"},
		{Relay{Preset: "brevo"}, "MAIL", 502, "5.7.0", "Your SMTP account is not yet activated.", "relay"},
		{Relay{Preset: "sparkpost"}, "dot", 550, "5.7.1", "Unconfigured Sending Domain <x.test>", "sender"},
		{Relay{Preset: "smtp2go"}, "dot", 550, "5.0.0", "From header sender domain not verified. On your Settings > Sender Domains page verify the sender domain to be allowed to send.", "sender"},
		{Relay{Preset: "resend"}, "dot", 550, "5.0.0", "The x.test domain is not verified. Please, add and verify your domain on https://resend.com/domains", "sender"},
		{Relay{Preset: "zoho"}, "dot", 550, "5.4.6", "Unusual sending activity detected.", "relay"},
		{Relay{Host: Hosts{"smtp.zoho.eu"}}, "dot", 553, "5.0.0", "Relaying disallowed as a@x.test", "sender"},
		{Relay{Preset: "yahoo"}, "MAIL", 553, "5.0.0", "From address not verified", "sender"},
		{Relay{Preset: "turbosmtp"}, "dot", 550, "5.0.0", "Sending quota reached", "relay"},
		{Relay{Host: Hosts{"smtp.example.net"}}, "dot", 550, "5.4.5", "Daily user sending limit exceeded", ""},
		{Relay{}, "MAIL", 530, "5.7.0", "Authentication required", "relay"},
		{Relay{}, "connect", 0, "4.4.1", "cannot connect to smtp.example.net:587: connection refused", "network"},
		{Relay{}, "connect", 0, "4.4.4", "cannot connect to nosuch.example.net:587: no such host", "relay"},
		{Relay{}, "TLS", 0, "4.7.5", "certificate not accepted", "relay"},
		{Relay{}, "STARTTLS", 0, "4.7.4", "STARTTLS is not offered", "relay"},
		{Relay{}, "greeting", 421, "4.3.2", "try later", "network"},
		{Relay{}, "RCPT", 451, "4.7.1", "Greylisted", ""},
		{Relay{}, "RCPT", 550, "5.7.1", "relaying denied", ""},
		{Relay{}, "dot", 0, "4.4.2", "connection lost at dot", ""},
	} {
		got := ""
		for _, f := range tt.relay.Faults() {
			if f.Fits(tt.command, tt.code, tt.status, tt.reply) {
				got = f.Kind
				break
			}
		}
		if got != tt.kind {
			t.Errorf("%v %v: %s %d %s %s: %q, want %q", tt.relay.Preset, tt.relay.Host, tt.command, tt.code, tt.status, tt.reply, got, tt.kind)
		}
	}
}
