package relay

import (
	"postino/config"
	"postino/spool"
)

// blame tells a reply that is about us and not about the mail, as faults.toml has it,
// from others: it is temporary then, whatever the remote said, and says what to do.
func blame(faults []config.Fault, r spool.Reply) spool.Reply {
	switch {
	case r.Class() == spool.Success,
		r.Command == "connect" && r.Status == "4.3.2", // we gave up ourselves
		r.Code == 0 && r.Class() == spool.Permanent:   // what we refuse for good is the mail
		return r
	}
	for i := range faults {
		if f := &faults[i]; f.Fits(r.Command, r.Code, r.Status, r.Text) {
			r = temporary(r)
			r.Fault, r.Remedy = spool.Fault(f.Kind), f.Remedy
			break
		}
	}
	return r
}
