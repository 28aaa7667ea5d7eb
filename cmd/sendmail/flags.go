package main

import (
	"strconv"
	"strings"
)

const usage = `usage: sendmail [-i] [-t] [-f sender] [-F name] [-N dsn] [-R return] [-V envid] [recipient ...]
       sendmail -bs | -bp | -bi | -bv address ... | -q
       sendmail --help | --version

Reads a message from standard input and queues it for its recipients.
  -t         take recipients from To, Cc and Bcc as well
  -i         a line with a lone dot does not end the message
  -f sender  envelope sender; "" and <> are the null sender
  -F name    full name for the From field, when the message has none
See sendmail(8) for the rest, and for the options that are accepted and ignored.
`

// The letters of sendmail's options, by the values they take.
const (
	withValue    = "ABCFLNORVXbefhopr" // the rest of the word, else the next word
	withAttached = "dEJq"              // the rest of the word, which may be empty
	withoutValue = "cGIimnstUvx"
)

// options is what the command line asks for.
type options struct {
	help, version bool
	// elsewhere: another mode than reading a message, which is postino's.
	elsewhere bool
	debug     bool // -d0…, by which scripts ask for the version
	// fromHeader is -t, keepDots -i. oit: -oit was given, which is -oi.
	fromHeader, keepDots, oit bool
	// sender is the last -f or -r, nil when there was none; name likewise -F.
	sender, name *string
	// The DSN parameters as they go on; empty when absent or not understood.
	notify          []string
	ret, envelopeID string
	requireTLS      bool
	noAliases       bool // -n
	operands        []string
	mode            string
	// ignored names options without effect that somebody should hear of: they ask
	// for what no caller of ours should, or were not understood.
	ignored []string
}

// parse reads the arguments as BSD getopt does: options may be joined, a value
// may be, and the first word that is no option ends them. The error is an
// *exitError.
func parse(args []string) (options, error) {
	o := options{mode: "m"}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0]
		args = args[1:]
		switch {
		case word == "--":
			return o.withOperands(args), nil
		case word == "--help":
			return options{help: true}, nil
		case word == "--version":
			return options{version: true}, nil
		case word[1] == '-':
			return options{}, usageError(strconv.Quote(word) + ` is not an option: "sendmail --help" lists them`)
		}
		for rest := word[1:]; rest != ""; {
			letter, value := rest[0], ""
			rest = rest[1:]
			takes := strings.IndexByte(withValue, letter) >= 0
			if takes || strings.IndexByte(withAttached, letter) >= 0 {
				value, rest = rest, ""
			}
			if takes && value == "" {
				if len(args) == 0 {
					return options{}, usageError("-" + string(rune(letter)) + " needs a value")
				}
				value, args = args[0], args[1:]
			}
			if err := o.set(letter, value); err != nil {
				return options{}, err
			}
		}
	}
	for _, a := range args {
		if strings.HasPrefix(a, "-") {
			return options{}, usageError("options come before the recipients: " + strconv.Quote(a))
		}
	}
	return o.withOperands(args), nil
}

// withOperands ends the parsing. An operand that begins with "-" is no address,
// but only who wrote it without "--" can have meant an option.
func (o options) withOperands(args []string) options {
	o.elsewhere = o.elsewhere || o.mode != "m"
	o.operands = args
	return o
}

// asksVersion reports whether this is one of the calls by which scripts find out
// what mailer they have: sendmail -d0.1, beside it -bt or -bv with an address, in
// place of a message for somebody.
func (o options) asksVersion() bool {
	if !o.debug {
		return false
	}
	return o.mode == "v" || o.mode == "t" || !o.elsewhere && !o.fromHeader && len(o.operands) == 0
}

// set takes one option. Those it does not name are accepted for the sake of
// callers that were written for other mailers, and mean nothing here.
func (o *options) set(letter byte, value string) error {
	switch letter {
	case 'b':
		o.mode = value
		if value == "q" {
			o.mode = "m" // to queue without delivering at once, which is all we ever do
		}
	case 'I':
		o.mode = "i"
	case 'q':
		o.elsewhere = true
	case 'd':
		o.debug = strings.HasPrefix(value, "0")
	case 't':
		o.fromHeader = true
	case 'i':
		o.keepDots = true
	case 'n':
		o.noAliases = true
	case 'o':
		if strings.HasPrefix(value, "i") {
			o.keepDots = true
			o.oit = o.oit || value == "it"
		}
	case 'f', 'r':
		o.sender = &value
	case 'F':
		o.name = &value
	case 'N':
		o.notify = notifyWords(value)
		o.ignore(len(o.notify) == 0, letter, value)
	case 'R':
		o.ret = returnWord(value)
		o.ignore(o.ret == "", letter, value)
	case 'V':
		// What is cut would not be found again in a report.
		if len(value) > maxEnvelopeID {
			return usageError("-V: an identifier has at most " + strconv.Itoa(maxEnvelopeID) + " characters")
		}
		o.envelopeID = envelopeID(value)
		o.ignore(o.envelopeID != value, letter, value)
	case 'X', 'C':
		o.ignore(true, letter, value)
	case 'O':
		o.long(value)
	default:
		if strings.IndexByte(withValue+withAttached+withoutValue, letter) < 0 {
			return usageError(strconv.Quote("-"+string(rune(letter))) + ` is not an option: "sendmail --help" lists them`)
		}
	}
	return nil
}

// long takes -O, "Name=value".
func (o *options) long(value string) {
	name, set, _ := strings.Cut(value, "=")
	switch {
	case strings.EqualFold(name, "DeliveryMode"), strings.EqualFold(name, "ErrorMode"):
	case strings.EqualFold(name, "RequireTLS") && strings.EqualFold(set, "yes"):
		o.requireTLS = true
	case strings.EqualFold(name, "RequireTLS") && strings.EqualFold(set, "no"):
		o.requireTLS = false
	default:
		o.ignore(true, 'O', value)
	}
}

// ignore notes that an option has no effect, if that is so.
func (o *options) ignore(so bool, letter byte, value string) {
	if so {
		o.ignored = append(o.ignored, "-"+string(rune(letter))+" "+quoted(value))
	}
}

func usageError(text string) error { return &exitError{exitUsage, text} }

// notifyWords reads the value of NOTIFY (RFC 3461 §4.1): never alone, or some of
// success, failure and delay. Anything else gives nil.
func notifyWords(value string) []string {
	var words []string
	for word := range strings.SplitSeq(strings.ToUpper(value), ",") {
		switch word = strings.Trim(word, " "); word {
		case "NEVER":
			if strings.Contains(value, ",") {
				return nil
			}
		case "SUCCESS", "FAILURE", "DELAY":
		default:
			return nil
		}
		if !contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// returnWord reads the value of RET (RFC 3461 §4.3); "" when it is not one.
func returnWord(value string) string {
	switch strings.ToUpper(value) {
	case "FULL":
		return "FULL"
	case "HDRS", "HEADERS":
		return "HDRS"
	}
	return ""
}

// maxEnvelopeID octets is the longest ENVID there may be (RFC 3461 §4.4).
const maxEnvelopeID = 100

// envelopeID reads the value of ENVID, printable ASCII; "" when it is not.
func envelopeID(value string) string {
	for i := range len(value) {
		if value[i] < ' ' || value[i] > '~' {
			return ""
		}
	}
	return value
}
