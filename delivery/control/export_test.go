package control

// For the tests outside.
var (
	MatchAddress = matchAddress
)
