package submit_test

import "testing"

// RFC 5321 §4.2.2: 500 is for what is no command, 503 for what comes out of sequence,
// 502 for what is not offered.
func TestRefusedCommandsHaveTheirStandardCodes(t *testing.T) {
	d := speak(t, newRig(t).dir)
	d.say("MAIL FROM:<a@b.test>\r\n", "503 5.5.1 ")
	d.say("FOO\r\n", "500 5.5.2 ")
	d.say("EHLO me\r\n", "250 ")
	d.say("RCPT TO:<a@b.test>\r\n", "503 5.5.1 ")
	d.say("DATA\r\n", "503 5.5.1 ")
	d.say("AUTH PLAIN AGEAYg==\r\n", "502 5.5.1 ")
	d.say("EXPN root\r\n", "502 5.5.1 ")
	d.say("MAIL FROM:<a@b.test>\r\n", "250 ")
	d.say("MAIL FROM:<a@b.test>\r\n", "503 5.5.1 ")
	d.say("DATA\r\n", "503 5.5.1 ")
	d.say("QUIT\r\n", "221 ")
	d.end()
}
