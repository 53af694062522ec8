// Package integration tests nestboot from outside: the programs as they are
// built, real firmware in virtual machines, and the rules of the house.
package integration
