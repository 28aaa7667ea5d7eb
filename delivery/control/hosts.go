package control

import "postino/delivery"

func newAlerts(list []delivery.Alert) []Alert {
	out := make([]Alert, len(list))
	for i, a := range list {
		out[i] = Alert{Hop: a.Hop, Sender: a.Sender, Since: a.Since.UTC(), Next: a.Next.UTC(), Reply: a.Reply.Said(), Remedy: a.Reply.Remedy}
	}
	return out
}
