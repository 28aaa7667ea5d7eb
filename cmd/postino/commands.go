package main

import (
	"context"
	"flag"
	"strings"

	"postino/delivery/control"
)

// command is one entry of the dispatch table.
type command struct {
	name     string // one word or two
	operands string
	about    string
	example  string
	flags    []flags // besides --config, --spool and --user
	run      func(ctx context.Context, a *app, o options, operands []string) error
}

// family is the commands that a page of the manual explains.
type family struct {
	page     string // in section 8
	about    string
	commands []command
}

// families is the dispatch table, in the order of the manual.
func families() []family {
	ids := "ID ... | --all | FILTER ..."
	steering := []flags{flagJSON, flagAll, flagDryRun, flagsSelection, flagLimit}
	return []family{
		{"postino-run", "the runner", []command{
			{"run", "", "keep the spool and deliver what is in it", "postino run", []flags{flagUntilEmpty},
				func(ctx context.Context, a *app, o options, operands []string) error {
					if len(operands) > 0 {
						return usageError("run takes no operands")
					}
					return runRunner(ctx, a, o.untilEmpty)
				}},
			{"stop", "", "have the runner end, and wait until it has", "postino stop", nil, runStop},
			{"reload", "", "have the runner read its configuration again, and say what is wrong with it", "postino reload", nil, runReload},
			{"status", "", "say how the runner does, and what is wrong with its spool", "postino status", []flags{flagJSON}, runStatus},
		}},
		{"postino-queue", "the mail that waits", []command{
			{"queue", "", "list what is not delivered yet, or with --failed what has failed", "postino queue --status deferred --older 2h", []flags{flagJSON, flagFailed, flagsSelection, flagLimit}, runQueue},
			{"mailq", "", "print the queue as mailq(1) does", "postino mailq", nil, runQueue},
			{"show", "ID", "show one message: envelope, attempts, recipients", "postino show 06423B2F1C0A5E77", []flags{flagJSON, flagContent}, runShow},
			{"hold", ids, "attempt nothing until release", "postino hold --from @shop.example", steering, steer(control.Hold, "held")},
			{"release", ids, "let held messages go, at once", "postino release --all", steering, steer(control.Release, "released")},
			{"retry", ids, "attempt messages at once", "postino retry --to @example.org", append(steering[:len(steering):len(steering)], flagFailed), steer(control.Retry, "due now")},
			{"delete", ids, "give messages up", "postino delete --older 3d --dry-run", append(steering[:len(steering):len(steering)], flagFailed, flagYes), steer(control.Delete, "deleted")},
			{"suspend", "", "accept and hold all mail of a user; without --uid, list who is suspended",
				"postino suspend --uid www-data --reason \"hacked blog\"", []flags{flagJSON, flagUser, flagWhy}, runSuspend},
			{"resume", "", "end a suspension, and release what it held", "postino resume --uid www-data", []flags{flagJSON, flagUser}, runResume},
		}},
		{"postino-log", "what became of mail", []command{
			{"trace", "WHAT", "find messages by queue ID, Message-ID, address or part of the subject, and tell their whole life",
				"postino trace bob@example.org", []flags{flagJSON}, runTrace},
			{"log", "[ID ...]", "tell what happened, in the order of its time", "postino log --follow --uid www-data",
				[]flags{flagJSON, flagsLog, flagsSelection}, runLog},
		}},
		{"postino-hosts", "where mail goes", []command{
			{"route", "ADDRESS ...", "say where mail for an address would go", "postino route bob@example.org", []flags{flagJSON}, runRoute},
			{"hosts", "", "say what is known of the servers that mail goes to, and which routes are shut", "postino hosts", []flags{flagJSON, flagForget}, runHosts},
		}},
		{"postino-stats", "how much it is", []command{
			{"stats", "", "count the queue, and what became of mail", "postino stats", []flags{flagJSON, flagPrometheus}, runStats},
		}},
		{"postino-export", "moving to another host", []command{
			{"export", "ID ... | --all | FILTER ... DIR", "write messages into a directory, to move them to another host",
				"postino export --all --remove /root/queue", []flags{flagAll, flagRemove, flagsSelection, flagLimit}, runExport},
			{"import", "DIR", "queue what export wrote", "postino import /root/queue", nil, runImport},
		}},
		{"postino-capture", "mail that mode capture kept", []command{
			{"capture list", "", "list the mail kept by mode capture", "postino capture list", []flags{flagJSON}, runCaptureList},
			{"capture show", "ID", "print a message as it would have been sent", "postino capture show 06423B2F1C0A5E77", nil, runCaptureShow},
		}},
		{"postino-aliases", "aliases", []command{
			{"aliases check", "[FILE]", "say what is wrong with the aliases file", "postino aliases check", nil, runAliasesCheck},
			{"aliases expand", "ADDRESS ...", "say whom a name of this machine stands for, and by which aliases", "postino aliases expand root", []flags{flagJSON}, runAliasesExpand},
		}},
		{"postino-dkim", "signing", []command{
			{"dkim keygen", "DOMAIN SELECTOR FILE", "make a key to sign mail with, and print the record to publish",
				"postino dkim keygen example.com s1 /etc/postino/dkim/s1.pem", []flags{flagJSON, flagKind}, runDKIMKeygen},
			{"dkim record", "[DOMAIN]", "print the records that the configured keys need", "postino dkim record example.com", []flags{flagJSON}, runDKIMRecord},
		}},
		{"postino-config", "the configuration", []command{
			{"config check", "[FILE]", "say what is wrong with the configuration", "postino config check", nil, runConfigCheck},
			{"config show", "", "print the configuration, and where each value is from", "postino config show", []flags{flagJSON}, runConfigShow},
			{"config import", "PEER [FILE]", "print the configuration of another mail program as ours, or take over its queue",
				"postino config import postfix --secrets /etc/postino/secrets", []flags{flagJSON, flagsImport}, runConfigImport},
		}},
		{"postino-setup", "beginning", []command{
			{"setup", "", "ask what it takes to send mail by a smarthost, try it, write it down and send a mail", "postino setup",
				[]flags{flagsSetup}, runSetup},
		}},
		{"postino-doctor", "what is wrong", []command{
			{"doctor", "", "look at all that has to be right for mail to go out, and send none", "postino doctor", []flags{flagJSON}, runDoctor},
		}},
		{"postino-auth", "access tokens", []command{
			{"auth login", "[google | microsoft | URL]", "let the runner fetch access tokens for an account, see [relay.oauth]",
				"postino auth login microsoft", []flags{flagAccount}, runAuthLogin},
			{"auth status", "", "list the accounts that access tokens are fetched for, and whether somebody is logged in", "postino auth status", []flags{flagJSON}, runAuthStatus},
			{"auth logout", "[google | microsoft | URL]", "forget the tokens of an account", "postino auth logout microsoft", []flags{flagAccount}, runAuthLogout},
		}},
		{"postino-spool", "the spool", []command{
			{"spool check", "", "say what is wrong with a spool that no runner has", "postino spool check", []flags{flagJSON}, runSpoolCheck},
			{"spool salvage", "[FILE]", "bring the mail in a damaged spool file back", "postino spool salvage spool.db.damaged.20261125T033000.000000Z",
				[]flags{flagJSON}, runSpoolSalvage},
			{"spool compact", "", "make the spool file as small as what is in it", "postino spool compact", []flags{flagJSON}, runSpoolCompact},
		}},
		{"postino-mailbox", "what a service manager starts", []command{
			{"mailbox serve", "[SOCKET]", "write mail into users' mailboxes for a runner on standard input or a socket; see local.helper", "postino mailbox serve", nil, runMailboxServe},
			{"mailbox write", "", "what mailbox serve starts as the user", "postino mailbox write", nil, runMailboxWrite},
			{"program serve", "[SOCKET]", "run programs and write files that aliases name, for a runner on standard input or a socket; see aliases.helper", "postino program serve", nil, runProgramServe},
		}},
		{"postino", "this program", []command{
			{"completion", "SHELL", "print the completions for bash, zsh or fish", "postino completion bash", nil, runCompletion},
			{"version", "", "print the version", "postino version", []flags{flagJSON}, runVersion},
			{"help", "[COMMAND]", "explain a command", "postino help trace", nil, runHelp},
		}},
	}
}

// commands are those of all families.
func commands() []command {
	var list []command
	for _, f := range families() {
		list = append(list, f.commands...)
	}
	return list
}

// findCommand finds the command whose name args begin with.
func findCommand(args []string) (*command, []string, error) {
	group := false
	for _, c := range commands() {
		words := strings.Fields(c.name)
		if args[0] != words[0] {
			continue
		}
		if len(words) == 1 {
			return &c, args[1:], nil
		}
		if len(args) > 1 && args[1] == words[1] {
			return &c, args[2:], nil
		}
		group = true
	}
	if group && len(args) > 1 && (args[1] == "--help" || args[1] == "-h") {
		return nil, nil, flag.ErrHelp
	}
	if group {
		return nil, nil, usageError(`%q is not complete: "postino help %s" lists the commands`, strings.Join(args[:min(2, len(args))], " "), args[0])
	}
	return nil, nil, usageError(`%q is not a command: "postino help" lists them`, args[0])
}
