package pki

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/nestboot/nestboot/store"
)

// Why a grant or a done token was refused. The codes are stable.
const (
	CodeGrantUnknown         = "grant-unknown"
	CodeGrantExpired         = "grant-expired"
	CodeGrantBurned          = "grant-burned"
	CodeGrantExhausted       = "grant-exhausted"
	CodeGrantOtherAddress    = "grant-other-address"
	CodeGrantOtherCredential = "grant-other-credential"
	CodeGrantState           = "grant-state" // the step doesn't follow the last one
)

// ErrAlreadyDone is returned by Done for a token that has done its work
// before: the machine didn't get our answer. Answer it again.
var ErrAlreadyDone = errors.New("the boot is done already")

// GrantError is the error with which a step of a boot session is turned down.
type GrantError struct {
	Code   string
	Boot   string
	Reason string
}

func (e *GrantError) Error() string { return e.Code + ": boot " + e.Boot + ": " + e.Reason }

// Grants are the boot sessions of all machines: opened when a machine gets its
// script, minted when its per-machine initrd is rendered, used when Ignition
// fetches its configuration, burned when the machine reports. Each step is one
// transaction, so two bootd processes on one store agree. Sessions are kept
// below "grants/". When the store takes no writes they are kept in memory and a
// restart forgets them: a grant that was stored before and burned since is then
// good again, for what is left of its 10 minutes and for the same address.
//
// The methods return a *GrantError when a step is refused, with the Session if
// there is one; any other error means that the step could not be recorded.
type Grants struct {
	// Good says why a credential that was good when a boot was opened is not any
	// more. It is to be set before the first boot; nil: certificates of sets are
	// looked up, others are good.
	Good func(id Identity, at time.Time) error

	ledger ledger
	certs  *store.Mirror // records of certificates
	now    func() time.Time
}

// OpenGrants loads the sessions. ctx bounds the loading only; log and now may
// be nil.
func OpenGrants(ctx context.Context, s *store.Store, log *slog.Logger, now func() time.Time) (*Grants, error) {
	log, now = orDefaults(log, now)
	mirror, err := s.Mirror(context.WithoutCancel(ctx), grantsPrefix)
	if err != nil {
		return nil, fmt.Errorf("load boot sessions: %w", err)
	}
	certs, err := s.Mirror(context.WithoutCancel(ctx), certPrefix)
	if err != nil {
		return nil, fmt.Errorf("load certificates of boot sessions: %w", err)
	}
	return &Grants{now: now, certs: certs, ledger: ledger{
		store: s, mirror: mirror, log: log, now: now, memory: map[string]Session{},
	}}, nil
}

// Open begins a boot: the script with this boot id has been given to machine,
// which showed credential and is to be called name. It ends every earlier boot of the machine. Ids are
// 1 to 64 letters, digits, '-' and '_'; a boot id is never used
// twice, but the same call again, before anything was minted, does no harm: the
// answer to the first may have been lost.
func (g *Grants) Open(ctx context.Context, boot, machine, name string, credential [32]byte) error {
	return g.OpenFor(ctx, boot, machine, name, Identity{Fingerprint: credential})
}

// OpenFor is Open for a machine that has proved who it is: Good will be asked
// about that.
func (g *Grants) OpenFor(ctx context.Context, boot, machine, name string, id Identity) error {
	if err := errors.Join(checkID(boot), checkID(machine)); err != nil {
		return fmt.Errorf("open boot session: %w", err)
	}
	return g.ledger.open(ctx, Session{
		Boot: boot, Machine: machine, Name: name, Credential: id.Fingerprint, State: Opened, Opened: g.now().UTC(),
		By: caller{id.Kind, id.ID, id.Name, id.Set, id.Serial, id.NotAfter, id.Path},
	})
}

// Mint makes the grant that goes into the per-machine initrd, replacing an
// earlier one of the same boot, and names the machine that it is for. Only who
// opened the boot may ask, within an hour and before the grant is used. The
// grant must be redeemed within 10 minutes.
func (g *Grants) Mint(ctx context.Context, boot string, credential [32]byte) (grant Token, machine string, err error) {
	grant, now := Token{Boot: boot, Secret: NewSecret()}, g.now().UTC()
	s, err := g.ledger.change(ctx, boot, func(s *Session) error {
		return s.mint(grant.Secret.digest(), credential, now)
	})
	if err != nil {
		return Token{}, s.Machine, err
	}
	return grant, s.Machine, nil
}

// Fetch is Redeem and MintDone in one step: the machine gets a configuration,
// and with it the token for its report.
func (g *Grants) Fetch(ctx context.Context, grant Token, addr netip.Addr) (s Session, done Token, err error) {
	if !addr.IsValid() {
		return s, done, errNoAddress
	}
	done, now := Token{Boot: grant.Boot, Secret: NewSecret()}, g.now().UTC()
	s, err = g.ledger.change(ctx, grant.Boot, func(s *Session) error {
		if err := g.redeem(s, grant, addr, now); err != nil {
			return err
		}
		return s.mintDone(done.Secret.digest(), now)
	})
	if err != nil {
		return s, Token{}, err
	}
	return s, done, nil
}

// Redeem uses a grant. The first use binds it to addr; from there it may be
// used 5 times in 10 minutes, since Ignition retries. A boot whose credential
// has been ended since is over: CodeGrantBurned.
func (g *Grants) Redeem(ctx context.Context, grant Token, addr netip.Addr) (Session, error) {
	if !addr.IsValid() {
		return Session{}, errNoAddress
	}
	now := g.now().UTC()
	return g.ledger.change(ctx, grant.Boot, func(s *Session) error { return g.redeem(s, grant, addr, now) })
}

var errNoAddress = errors.New("redeem grant: the client has no address")

func (g *Grants) redeem(s *Session, grant Token, addr netip.Addr, now time.Time) error {
	if grant.Secret.is(s.Grant) {
		if err := g.ended(s, now); err != nil {
			return s.refuse(CodeGrantBurned, "what the machine showed when it began to boot is not good any more: "+err.Error())
		}
	}
	return s.redeem(grant.Secret, addr.Unmap(), now)
}

// ended says why the credential of a boot is not good any more.
func (g *Grants) ended(s *Session, now time.Time) error {
	if g.Good != nil && s.By.Kind != "" {
		return g.Good(s.identity(), now)
	}
	if g.revoked(s.Credential) {
		return errors.New("its certificate was revoked")
	}
	return nil
}

// revoked reports whether the certificate with this fingerprint is recorded
// and not active. It looks through all of them, a few thousand at most, and is
// only asked by who holds a grant.
func (g *Grants) revoked(credential Digest) bool {
	for _, e := range g.certs.List(certPrefix) {
		var rec record
		if json.Unmarshal(e.Value, &rec) == nil && rec.Fingerprint == credential {
			return rec.State != stateActive
		}
	}
	return false
}

// MintDone makes the token with which the machine reports that it is done. It
// can do nothing else and lives 24 hours. Each rendering of a configuration
// gets its own; the last 5 of a boot are good.
func (g *Grants) MintDone(ctx context.Context, boot string) (Token, error) {
	token, now := Token{Boot: boot, Secret: NewSecret()}, g.now().UTC()
	if _, err := g.ledger.change(ctx, boot, func(s *Session) error {
		return s.mintDone(token.Secret.digest(), now)
	}); err != nil {
		return Token{}, err
	}
	return token, nil
}

// Done ends a boot: its grant and its done tokens are burned. The same call
// again returns ErrAlreadyDone and the same session.
func (g *Grants) Done(ctx context.Context, token Token) (Session, error) {
	now := g.now().UTC()
	return g.ledger.change(ctx, token.Boot, func(s *Session) error {
		return s.done(token.Secret, now)
	})
}

// Sweep deletes sessions that have been over for a day, and hands to the store
// what it refused earlier.
func (g *Grants) Sweep(ctx context.Context) error {
	g.ledger.flush(ctx)
	err := g.ledger.sweep(ctx)
	if g.ledger.inMemory(ctx, err) {
		return nil // it has been warned about, and the next sweep does it
	}
	return err
}

// Run sweeps every minute until ctx ends; then it returns nil.
func (g *Grants) Run(ctx context.Context) error {
	repeat(ctx, g.ledger.log, "grants", func(ctx context.Context) (time.Duration, error) {
		return time.Minute, g.Sweep(ctx)
	})
	return nil
}
