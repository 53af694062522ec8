// Package boot is the domain of nestboot: machines, what they ask, what they
// are told and what is remembered of it. Decide turns a Request and an
// Inventory into a Plan, Plan.Script turns the Plan into the iPXE script that
// carries it out, and an Event records each step.
//
// It is pure: it opens no socket and no file, reads no clock and writes no
// log. Callers hand it the time and do the talking. Begin at Decide.
package boot

import (
	"strings"
	"time"
)

// Policy says what a machine is to do when it asks.
type Policy string

// The policies a machine can have. The zero value means PolicyBoot.
const (
	PolicyBoot   Policy = "boot"   // boot the image over the network
	PolicyWait   Policy = "wait"   // stay in iPXE and ask again
	PolicyLocal  Policy = "local"  // leave iPXE, so that the firmware tries its next device
	PolicyRefuse Policy = "refuse" // show that it may not boot, and ask again much later
)

// Valid reports whether p is one of the policies above or empty.
func (p Policy) Valid() bool {
	switch p {
	case "", PolicyBoot, PolicyWait, PolicyLocal, PolicyRefuse:
		return true
	}
	return false
}

// Machine is one computer, known by the UUID of its firmware (SMBIOS type 1).
type Machine struct {
	UUID   string // canonical lower-case form
	Name   string // host name; empty: derived from the MAC address
	Policy Policy
	Image  string // name of its image; empty: the default image
}

// File is one downloadable part of an image.
type File struct {
	Name string // last element of its URL
	Size int64  // bytes
}

// Image is an operating system as the network serves it.
type Image struct {
	Name    string
	Arch    Arch
	Kernel  File
	Initrds []File
	Args    []string // kernel arguments, one word each
	Missing string   // why it cannot be served just now, with what to do; usually empty
}

// Inventory is what an operator has decided, as one immutable snapshot.
type Inventory struct {
	Default  string             // name of the image for machines that name none
	Images   map[string]Image   // by name
	Machines map[string]Machine // by UUID; a machine that is absent gets the defaults
}

// Credential is what a caller has proved before Decide is asked. It holds no
// secret.
type Credential struct {
	Kind        string   // how, in the words of package pki: "set", "ca", "pin" or "url"
	ID          int64    // number of the authority, pin or URL; 0 for a set
	Name        string   // name of the set, authority, pin or URL
	Set         string   // artifact set that it belongs to; empty: none
	Subject     string   // what its certificate calls itself; empty for a token
	Generation  int      // of the trust root that the caller came by; 0: not known
	Fingerprint [32]byte // SHA-256 of the certificate or token
}

// String is its kind and name, for events and lists; empty if nothing was
// proved.
func (c Credential) String() string { return strings.TrimSpace(c.Kind + " " + c.Name) }

// How long a machine waits before it asks again, by the kind of answer.
const (
	retryWait   = 15 * time.Second
	retryRefuse = 60 * time.Second
)
