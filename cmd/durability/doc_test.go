// Package durability_test breaks the machine under postino at every place and
// counts what is left: named crash points, a kill at each system call, an error at
// each system call, and kills at random. What counts as harm is decided by
// package oracle alone.
//
// All chance comes from one seed, which each test prints; CONTRIBUTING.md says how
// to repeat a run and how to run the full sizes.
package durability_test
