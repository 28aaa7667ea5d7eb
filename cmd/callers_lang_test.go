package cmd_test

import (
	"os/user"
	"testing"
)

const nodemailerScript = `
const transport = require('/usr/share/nodejs/nodemailer').createTransport({
  sendmail: true, newline: process.argv[1], path: process.env.SENDMAIL });
function broken() { // after more than a pipe holds
  const source = new (require('stream').Readable)({ read() {
    if (this.given++ < 100) this.push(Buffer.alloc(10000)); else this.destroy(new Error('the disk is broken'));
  } });
  return Object.assign(source, { given: 0 });
}
const to = ['alice@example.org', 'bob@example.org', 'carol@example.org', 'secret@example.org'];
if (process.env.EXTRA) to.push(process.env.EXTRA);
transport.sendMail({
  from: { name: 'Jürgen Groß', address: 'juergen@web.test' },
  to: [{ name: 'Åsa Öberg', address: 'alice@example.org' }, 'bob@example.org'],
  cc: 'carol@example.org', bcc: 'secret@example.org',
  envelope: { from: 'bounces@web.test', to },
  subject: process.env.SUBJECT, text: process.env.TEXT,
  attachments: [{ filename: 'data.bin', content: process.argv[2] ? broken() : Buffer.from(process.env.DATA, 'base64') }],
}, (err, info) => {
  console.log(err ? err.message : info.messageId);
  process.exitCode = err ? 1 : 0; // when the mailer has ended too
});
`

// nodemailer is Nodemailer with a setting of newline.
func nodemailer(newline string) library {
	return library{
		name: "Nodemailer, newline " + newline, program: "node", pkg: "nodejs",
		args: []string{"-e"}, script: nodemailerScript, more: []string{newline},
		file: "/usr/share/nodejs/nodemailer/package.json", from: "node-nodemailer",
		// It tells its user the status and not what the mailer said.
		bad: "x@example..org", says: []string{"Sendmail exited with code 65"},
	}
}

// Where its message breaks off in the middle, Nodemailer interrupts the mailer so
// that no half of it is sent.
func TestNodemailersInterruptLeavesNothing(t *testing.T) {
	t.Parallel()
	l := nodemailer("unix")
	l.more = append(l.more, "broken")
	s, b := plainRelay(t)
	for _, when := range []string{"without a runner", "with a runner"} {
		if r := b.run(l.command(b, "half", "")); r.code != 1 || r.out != "the disk is broken\n" {
			t.Errorf("%s: %+v, want its own error", when, r)
		}
		b.nothingStored(when)
		if when == "without a runner" {
			b.start()
		}
	}
	b.sendmail("Subject: whole\n\nhi\n", "alice@example.org")
	b.log.await(t, "msg=finished")
	if n := len(s.Messages()); n != 1 {
		t.Errorf("%d messages arrived, want only the whole one", n)
	}
}

const rubyScript = `
require 'mail'
mail = Mail.new(charset: 'UTF-8')
mail.from = 'Jürgen Groß <juergen@web.test>'
mail.to = ['Åsa Öberg <alice@example.org>', 'bob@example.org']
mail.to = mail[:to].formatted << ENV['EXTRA'] unless ENV['EXTRA'].empty?
mail.cc = 'carol@example.org'
mail.bcc = 'secret@example.org'
mail.subject = ENV['SUBJECT']
mail.text_part = Mail::Part.new { content_type 'text/plain; charset=UTF-8'; body ENV['TEXT'] }
mail.transport_encoding = mail.text_part.transport_encoding = '8bit'
mail.attachments['data.bin'] = { mime_type: 'application/octet-stream', content: ENV['DATA'].unpack1('m') }
mail.smtp_envelope_from = 'bounces@web.test'
if ARGV[0] == 'exim'
  mail.delivery_method :exim, location: ENV['SENDMAIL']
else
  mail.delivery_method :sendmail
end
begin
  mail.deliver!
  puts "<#{mail.message_id}>"
  puts "status #{$?.exitstatus}" unless $?.success?
rescue => e
  puts e.message
  exit 1
end
`

const emailSenderScript = `
use Encode; use Email::Simple; use Email::Sender::Simple; use Email::Sender::Transport::Sendmail;
my $email = Email::Simple->create(header => [
  From => encode('MIME-Header', decode('UTF-8', 'Jürgen Groß')) . ' <juergen@web.test>',
  To => encode('MIME-Header', decode('UTF-8', 'Åsa Öberg')) . ' <alice@example.org>, bob@example.org',
  Cc => 'carol@example.org', Bcc => 'secret@example.org',
  Subject => encode('MIME-Header', decode('UTF-8', $ENV{SUBJECT})),
  'MIME-Version' => '1.0', 'Content-Type' => 'text/plain; charset=UTF-8', 'Content-Transfer-Encoding' => '8bit',
], body => $ENV{TEXT});
my $done = eval {
  Email::Sender::Simple->send($email, { from => 'bounces@web.test',
    to => [qw(alice@example.org bob@example.org carol@example.org secret@example.org), $ENV{EXTRA} || ()],
    transport => Email::Sender::Transport::Sendmail->new });
};
if (!$done) { print $@->message; exit 1 }
`

const mimeLiteScript = `
use Encode; use MIME::Base64; use MIME::Lite;
my $msg = MIME::Lite->new(
  From => encode('MIME-Header', decode('UTF-8', 'Jürgen Groß')) . ' <juergen@web.test>',
  To => join(', ', encode('MIME-Header', decode('UTF-8', 'Åsa Öberg')) . ' <alice@example.org>', 'bob@example.org', $ENV{EXTRA} || ()),
  Cc => 'carol@example.org', Bcc => 'secret@example.org',
  Subject => encode('MIME-Header', decode('UTF-8', $ENV{SUBJECT})), Type => 'multipart/mixed');
$msg->attach(Type => 'text/plain; charset=UTF-8', Encoding => '8bit', Data => $ENV{TEXT});
$msg->attach(Type => 'application/octet-stream', Encoding => 'base64', Filename => 'data.bin', Data => decode_base64($ENV{DATA}));
my $done = eval { $msg->send('sendmail', FromSender => 'bounces@web.test') };
if (!$done) { print $@; exit 1 }
`

const pythonScript = `
import base64, os, sys
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import make_msgid
from subprocess import PIPE, Popen

msg = EmailMessage()
msg["Subject"] = os.environ["SUBJECT"]
msg["From"] = Address("Jürgen Groß", addr_spec="juergen@web.test")
to = [Address("Åsa Öberg", addr_spec="alice@example.org"), Address(addr_spec="bob@example.org")]
msg["To"] = to
msg["Cc"] = "carol@example.org"
msg["Bcc"] = "secret@example.org, " + os.environ["EXTRA"]
msg["Message-ID"] = make_msgid(domain="web.test")
msg.set_content(os.environ["TEXT"], cte="8bit")
msg.add_attachment(base64.b64decode(os.environ["DATA"]), maintype="application", subtype="octet-stream", filename="data.bin")
p = Popen([os.environ["SENDMAIL"], "-t", "-oi"], stdin=PIPE)
p.communicate(msg.as_bytes())
if p.returncode:
    print("status", p.returncode)
    sys.exit(1)
print(msg["Message-ID"])
`

// The libraries of other languages are served as they are. Ruby mail looks at the
// status from 2.8 on; before, its user is told nothing, but that the mailer's words
// appear on standard output.
func TestLettersOfLibrariesArrive(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	ruby := library{
		program: "ruby", pkg: "ruby", args: []string{"-e"}, script: rubyScript,
		file: "/usr/lib/ruby/vendor_ruby/mail.rb", from: "ruby-mail",
		bad: "-x@example.org", silent: true, says: []string{"status 65"},
	}
	sendmail, exim := ruby, ruby
	sendmail.name, sendmail.system, sendmail.more = "Ruby mail, :sendmail", true, []string{"sendmail"}
	exim.name, exim.more, exim.noBcc = "Ruby mail, :exim", []string{"exim"}, true

	for _, l := range []library{
		nodemailer("unix"), nodemailer("windows"), sendmail, exim,
		{
			name: "Perl Email::Sender", program: "perl", pkg: "perl", args: []string{"-e"}, script: emailSenderScript,
			file: "/usr/share/perl5/Email/Sender/Transport/Sendmail.pm", from: "libemail-sender-perl",
			system: true, noAttachment: true,
			bad: "-x@example.org", says: []string{"error when closing pipe to sendmail", "sendmail: recipient: ", "-x@example.org"},
		},
		{
			name: "Perl MIME::Lite", program: "perl", pkg: "perl", args: []string{"-e"}, script: mimeLiteScript,
			file: "/usr/share/perl5/MIME/Lite.pm", from: "libmime-lite-perl",
			system: true,
			bad:    "-x@example.org", says: []string{"error closing /usr/lib/sendmail", "exit 16640", "sendmail: ", "-x@example.org"},
		},
		{
			name: "Python subprocess", program: "python3", pkg: "python3", args: []string{"-c"}, script: pythonScript,
			file: "/usr/bin/python3", from: "python3",
			sender: me.Username + "@web.test",
			bad:    "-x@example.org", says: []string{"status 65", "sendmail: ", "-x@example.org"},
		},
	} {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			l.test(t)
		})
	}
}
