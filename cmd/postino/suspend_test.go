package main

import "testing"

// A suspension is an order of the administrator's, holds all that its user submits,
// and outlives the runner.
func TestSuspendAndResumeAUser(t *testing.T) {
	p := newPlace(t)
	id := p.store(t, 1500, "before").String()
	t.Run("first runner", func(t *testing.T) {
		p.start(t, 0)
		p.lines(t, []cliLine{
			{0, "postino suspend", 0, "Nobody is suspended\n", ""},
			{testStranger, "postino suspend", 77, "-", "not allowed"},
			{testStranger, "postino suspend --uid 1500", 77, "-", "not allowed"},
			{testOwner, "postino suspend --uid 1500 --reason evidence", 0, "uid 1500 is suspended: its mail is accepted and held", ""},
			{0, "postino suspend --uid nosuchuser", 64, "-", "nosuchuser"},
			{0, "postino suspend --reason x", 64, "-", "suspend takes --uid"},
			{0, "postino resume", 64, "-", "resume takes --uid"},
			{0, "postino suspend 33", 64, "-", "no operands"},
			{0, "postino suspend", 0, "by uid 1999: evidence\n", ""},
			{testOwner, "postino suspend --json", 0, `"uid":1500,`, ""},
		})
	})
	p.lines(t, []cliLine{
		{0, "postino suspend", 0, "uid 1500 since ", ""}, // the spool is read
		{0, "postino resume --uid 1500", 69, "-", "the runner is not running"},
	})
	during := p.store(t, 1500, "during").String()
	p.start(t, 0)
	p.lines(t, []cliLine{
		{0, "postino show " + during, 0, "uid 1500 is suspended: evidence", ""},
		{0, "postino hold " + id, 0, "1 message held\n", ""},
		{testStranger, "postino resume --uid 1500", 77, "-", "not allowed"},
		{0, "postino resume --uid 1500", 0, "uid 1500 is resumed, 1 message released\n", ""},
		{0, "postino resume --uid 1500", 1, "-", "uid 1500: not suspended"},
		{0, "postino queue --status held --json", 0, id, ""},
		{0, "postino suspend --json", 0, "-", ""},
	})
}
