//go:build !crashpoints

// Package crashpoint names the places where a crash is interesting: before and
// after each sync, rename, link, unlink and commit. In a release build they are
// nothing. Built with the tag crashpoints, a program dies at the one that its
// environment names, as by kill -9:
//
//	POSTINO_CRASH=NAME      the first time it gets there
//	POSTINO_CRASH=NAME:2    the second time
//	POSTINO_CRASH=?FILE     never: the places it gets to are added to FILE
//
// The tests in cmd/durability find the names in the source, so Here is always
// called with one as a literal that is used once, "what.verb.before" or "what.verb.after". Where one
// step follows another, the point after the first is the one before the second.
package crashpoint

// Here is a place to die at.
func Here(string) {}
