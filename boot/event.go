package boot

import (
	"net/netip"
	"time"
)

// Stage is one step of a boot.
type Stage string

// The stages in the order of a boot.
const (
	StageTFTPRequest Stage = "tftp-request"   // a file was asked for by TFTP
	StageTFTPDone    Stage = "tftp-done"      // and the transfer ended
	StageArtifact    Stage = "artifact"       // a file of a set was fetched over HTTP
	StageTLS         Stage = "tls"            // a TLS handshake ended on the name for machines
	StageChain       Stage = "chain"          // the script of a chain URL was fetched
	StageScript      Stage = "script"         // /ipxe/boot was answered
	StageKernel      Stage = "kernel"         // the kernel was fetched
	StageInitrd      Stage = "initrd"         // an initrd of the image was fetched
	StageConfig      Stage = "machine-initrd" // the machine's own initrd was fetched
	StageIgnition    Stage = "ignition"       // Ignition fetched its configuration
	StageDone        Stage = "done"           // the machine has phoned home
	StageKey         Stage = "key-exposure"   // a file with a private key was asked for over an open protocol
	StageCutOff      Stage = "cut-off"        // a connection was closed, because what it had shown is not good any more
	StageLockout     Stage = "lockout"        // an address has failed too often to prove who it is (with a code), or is over it
)

// Event is one thing that happened on the way of a machine. It holds no
// secret. Fields that are not known at a stage are empty.
type Event struct {
	ID      int64      `json:"id"` // ascending; set by the journal
	Time    time.Time  `json:"time"`
	Stage   Stage      `json:"stage"`
	Boot    string     `json:"boot,omitempty"`    // id of the boot it belongs to
	Machine string     `json:"machine,omitempty"` // UUID
	MAC     string     `json:"mac,omitempty"`
	Addr    netip.Addr `json:"addr,omitzero"`
	Name    string     `json:"name,omitempty"` // file, image or set it is about
	// Credential is how the caller proved who it is, or failed to: its kind and
	// name, as Credential.String has it.
	Credential string        `json:"credential,omitempty"`
	Duration   time.Duration `json:"duration_ns,omitempty"`
	Bytes      int64         `json:"bytes,omitempty"`
	Code       string        `json:"code,omitempty"`  // short reason of a refusal
	Error      string        `json:"error,omitempty"` // what went wrong, for the operator
	Detail     string        `json:"detail,omitempty"`
}

// Failed reports whether the step did not do what the machine wanted.
func (e Event) Failed() bool { return e.Error != "" || e.Code != "" }
