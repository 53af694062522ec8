package pki

import "time"

// Kind is the way in which a caller has proved who it is.
type Kind string

// The ways.
const (
	KindSet  Kind = "set"      // a certificate that this PKI issued to an artifact set
	KindCA   Kind = "ca"       // a certificate of a registered authority
	KindPin  Kind = "pin"      // a registered certificate or key
	KindURL  Kind = "url"      // the token of an iPXE chain URL
	KindUEFI Kind = "uefi-url" // the token of a UEFI HTTP Boot URL, which opens files and nothing else
)

// Identity is who a credential speaks for. It holds no secret.
type Identity struct {
	Kind Kind
	// ID is the number of the registered authority, of the pin or of the URL;
	// 0 for a set.
	ID int64
	// Name is the name of the set, authority, pin or URL.
	Name string
	// Set is the artifact set that the credential belongs to; empty where there
	// is none.
	Set string
	// Generation is the one that issued the certificate of a set; 0 for others.
	Generation int
	// Subject is what the presented certificate calls itself; empty for a token.
	Subject string
	// Machines are the UUIDs that the credential is limited to; empty: any. The
	// limits of a set are the set's own.
	Machines []string
	// Fingerprint is the SHA-256 of the certificate's DER form, or of the token:
	// it ties the steps of a boot together.
	Fingerprint Digest
	// Serial is the certificate's serial number in lower-case hex; empty for a
	// token.
	Serial string
	// NotAfter is when the credential ends; zero: never.
	NotAfter time.Time
	// Path is the way from the certificate to the registered authority that
	// vouches for it: who issued it, who issued that one, and so on; at most
	// seven. Empty for other kinds.
	Path []Hop
}

// Hop is one certificate of a path as its issuer's revocation list knows it.
type Hop struct {
	Serial string `json:"serial"` // in lower-case hex
	Issuer Digest `json:"issuer"` // SHA-256 of the issuer's name and key
	By     string `json:"by"`     // what reasons call the issuer
}

// Step is one rule that was asked about a credential, and its answer: Code is
// empty where the rule accepts it.
type Step struct {
	Rule   string `json:"rule"`
	Code   string `json:"code,omitempty"`
	Reason string `json:"reason"`
}
