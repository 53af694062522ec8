package pki

import (
	"net/netip"
	"slices"
	"time"
)

// How long each step of a boot may take, and how often it may be tried.
const (
	openLife   = time.Hour        // script → per-machine initrd: kernel and image come before it
	mintedLife = 10 * time.Minute // initrd → first fetch of the configuration
	usedLife   = 10 * time.Minute // first fetch → last one
	maxFetches = 5
	doneLife   = 24 * time.Hour // configuration rendered → machine reports
	retention  = 24 * time.Hour // ended or expired → forgotten
)

// State is how far a boot session has come.
type State string

// The states, in the order in which a boot passes through them.
const (
	Opened State = "opened" // the script was given
	Minted State = "minted" // the grant lies in the per-machine initrd
	Used   State = "used"   // the grant is bound to an address
	Burned State = "burned" // the machine has reported, or booted anew
)

// Session is one boot of one machine. It holds hashes of secrets only, and
// changes by its methods only, which are pure: they take the time, and leave
// the session as it was when they fail.
type Session struct {
	Boot       string     `json:"boot"`
	Machine    string     `json:"machine"`
	Name       string     `json:"name"`       // host name that the machine was told
	Credential Digest     `json:"credential"` // fingerprint of what the machine showed
	By         caller     `json:"by,omitzero"`
	State      State      `json:"state"`
	Opened     time.Time  `json:"opened"`
	MintedAt   time.Time  `json:"minted_at,omitzero"`
	UsedAt     time.Time  `json:"used_at,omitzero"`    // first fetch
	DoneUntil  time.Time  `json:"done_until,omitzero"` // end of the done tokens
	BurnedAt   time.Time  `json:"burned_at,omitzero"`
	Done       bool       `json:"done,omitzero"`    // burned because the machine has reported
	Addr       netip.Addr `json:"addr,omitzero"`    // of the first fetch
	Fetches    int        `json:"fetches,omitzero"` // successful ones
	Grant      Digest     `json:"grant,omitzero"`
	DoneHashes []Digest   `json:"done_hashes,omitempty"` // the last maxFetches
}

// caller is what has to be known to ask again about the credential that a boot
// was opened with. It is empty in sessions from before there were several kinds.
type caller struct {
	Kind     Kind      `json:"kind"`
	ID       int64     `json:"id,omitzero"`
	Name     string    `json:"name"`
	Set      string    `json:"set,omitzero"`
	Serial   string    `json:"serial,omitzero"`
	NotAfter time.Time `json:"not_after,omitzero"`
	Path     []Hop     `json:"path,omitempty"`
}

// identity is as much of who opened the boot as is known.
func (s *Session) identity() Identity {
	return Identity{
		Kind: s.By.Kind, ID: s.By.ID, Name: s.By.Name, Set: s.By.Set, Serial: s.By.Serial, NotAfter: s.By.NotAfter,
		Fingerprint: s.Credential, Path: s.By.Path,
	}
}

// mint replaces the grant: an initrd that is downloaded again brings a new one.
func (s *Session) mint(grant Digest, credential [32]byte, now time.Time) error {
	switch {
	case s.Credential != credential:
		return s.refuse(CodeGrantOtherCredential, "the boot was opened with another certificate")
	case s.State == Burned:
		return s.refuseBurned()
	case s.State == Used:
		return s.refuse(CodeGrantState, "the configuration was fetched already")
	case now.After(s.Opened.Add(openLife)):
		return s.refuse(CodeGrantExpired, "the script was given more than an hour ago")
	}
	s.State, s.Grant, s.MintedAt = Minted, grant, now
	return nil
}

// redeem lets the grant be used. The secret is compared first: whoever has
// guessed a boot id learns nothing about the boot.
func (s *Session) redeem(grant Secret, addr netip.Addr, now time.Time) error {
	switch {
	case !grant.is(s.Grant):
		return s.refuse(CodeGrantUnknown, "no such grant, or a later initrd replaced it")
	case s.State == Burned:
		return s.refuseBurned()
	case s.State == Minted && now.After(s.MintedAt.Add(mintedLife)):
		return s.refuse(CodeGrantExpired, "minted more than 10 minutes ago")
	case s.State == Minted:
		s.State, s.Addr, s.UsedAt, s.Fetches = Used, addr, now, 1
		return nil
	case s.Addr != addr:
		return s.refuse(CodeGrantOtherAddress, "first used by "+s.Addr.String())
	case now.After(s.UsedAt.Add(usedLife)):
		return s.refuse(CodeGrantExpired, "first used more than 10 minutes ago")
	case s.Fetches >= maxFetches:
		return s.refuse(CodeGrantExhausted, "used 5 times")
	}
	s.Fetches++
	return nil
}

// mintDone adds a token. The older ones stay good: Ignition may fetch again
// and then apply any of the answers.
func (s *Session) mintDone(token Digest, now time.Time) error {
	switch {
	case s.State == Burned:
		return s.refuseBurned()
	case s.State != Used:
		return s.refuse(CodeGrantState, "the configuration was not fetched yet")
	}
	hashes := append(slices.Clone(s.DoneHashes), token)
	s.DoneHashes = hashes[max(0, len(hashes)-maxFetches):]
	s.DoneUntil = now.Add(doneLife)
	return nil
}

// done ends the session. It returns ErrAlreadyDone when the token did so
// before.
func (s *Session) done(token Secret, now time.Time) error {
	switch {
	case !slices.ContainsFunc(s.DoneHashes, token.is):
		return s.refuse(CodeGrantUnknown, "no such token")
	case s.Done:
		return ErrAlreadyDone
	case s.State == Burned:
		return s.refuseBurned()
	case now.After(s.DoneUntil):
		return s.refuse(CodeGrantExpired, "the machine took more than 24 hours to report")
	}
	s.burn(now)
	s.Done = true
	return nil
}

func (s *Session) burn(now time.Time) { s.State, s.BurnedAt = Burned, now }

// forgettable reports whether nothing can be asked of s any more, for long
// enough that nobody will wonder why.
func (s *Session) forgettable(now time.Time) bool {
	var end time.Time
	switch s.State {
	case Opened:
		end = s.Opened.Add(openLife)
	case Minted:
		end = s.MintedAt.Add(mintedLife)
	case Used:
		end = s.UsedAt.Add(usedLife)
		if s.DoneUntil.After(end) {
			end = s.DoneUntil
		}
	case Burned:
		end = s.BurnedAt
	}
	return now.After(end.Add(retention))
}

func (s *Session) refuseBurned() error {
	if s.Done {
		return s.refuse(CodeGrantBurned, "the machine has reported that it is done")
	}
	return s.refuse(CodeGrantBurned, "the machine has started another boot")
}

func (s *Session) refuse(code, reason string) error {
	return &GrantError{Code: code, Boot: s.Boot, Reason: reason}
}
